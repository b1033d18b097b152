#pragma once

#include <cstdint>

#include "peft/base/export.h"
#include "peft/ops/frozen_weight.h"

namespace peft {

/// Rows whose logits exist at a time: few enough that they are small compared to the activations, enough that reading
/// the head's weight once for each chunk is cheap.
inline constexpr int64_t kLogitRows = 256;

/// Sum over rows of the cross-entropy of hidden·Wᵀ with `targets` [N] int64, in fp32 (fp64 for fp64). hidden: [N, H],
/// W: [V, H]. Logits exist for kLogitRows rows at a time. Throws c10::Error for a target that is not in [0, V).
PEFT_API Tensor linear_cross_entropy_sum(const Tensor& hidden, const FrozenWeight& weight, const Tensor& targets);

}  // namespace peft

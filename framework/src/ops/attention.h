#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Causal attention inside each example. q: [T, heads, D], k and v: [T, kv_heads, D], heads a multiple of kv_heads;
/// cu_seqlens: [examples + 1] offsets into T, rising from 0 to T. Returns [T, heads · D].
PEFT_API Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& cu_seqlens,
                          double scale);

}  // namespace peft

#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Rotates dimensions i and i + D/2 of each head by the token's angle, as transformers' rotate_half.
/// x: [T, heads, D]; cos, sin: [T, D/2], or [T, D] with equal halves.
PEFT_API Tensor apply_rotary(const Tensor& x, const Tensor& cos, const Tensor& sin);

}  // namespace peft

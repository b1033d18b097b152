#pragma once

#include "peft/site.h"

namespace peft {

/// x·Wᵀ + b + scale · (x·Aᵀ)·Bᵀ, with gradients for x, A and B only. Every product runs through rank r first, and
/// nothing of the output's size is written twice. x: [..., in].
Tensor low_rank_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const LowRank& update);

}  // namespace peft

#pragma once

#include <optional>
#include <vector>

#include "peft/ops/low_rank.h"

namespace peft {

/// A frozen Linear with what a low-rank layer adds to it, if any: y = x·Wᵀ + b + scale · (x·Aᵀ)·Bᵀ. The functions below
/// compute such layers with a backward pass of their own: every product runs through rank r first, no gradient of W
/// exists, gradients of a shared input are summed in place, and what is cheap to compute again is not kept.
struct AdaptedLinear {
  Tensor weight, bias;
  std::optional<LowRank> update;
};

/// x: [..., in]. Kept: x, and x·Aᵀ.
Tensor low_rank_linear(const Tensor& x, const AdaptedLinear& linear);

/// x, to add to what follows, then all of `linears` on rms_norm(x), x: [T, H]. Kept: x, its norms, and the products
/// with A; the norm's output is made again while the gradient of x is.
std::vector<Tensor> normed_linears(const Tensor& x, const Tensor& norm, double eps,
                                   const std::vector<AdaptedLinear>& linears);

/// `down` on silu(gate) · up, both [T, I]. Kept: these two, and the product with A; the activation is made
/// again while their gradients are.
Tensor gated_linear(const Tensor& gate, const Tensor& up, const AdaptedLinear& down);

}  // namespace peft

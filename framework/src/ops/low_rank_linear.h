#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "peft/ops/frozen_weight.h"
#include "peft/ops/low_rank.h"

namespace peft {

/// A frozen Linear with its low-rank update, if any: y = x·Wᵀ + b + scale · (x·Aᵀ)·Bᵀ. The functions below compute such
/// layers with their own backward pass: every product goes through rank r first, W has no gradient, the gradients of a
/// shared input are summed in place, and what is cheap to recompute is not saved.
struct AdaptedLinear {
  std::shared_ptr<const FrozenWeight> weight;
  Tensor bias;
  std::optional<LowRank> update;
};

/// x: [..., in]. Saves x and x·Aᵀ for the backward pass.
Tensor low_rank_linear(const Tensor& x, const AdaptedLinear& linear);

/// Returns x, for the residual connection, then each of `linears` on rms_norm(x), x: [T, H]. Saves x, its norms and the
/// products with A; the backward pass recomputes the norm's output together with the gradient of x.
std::vector<Tensor> normed_linears(const Tensor& x, const Tensor& norm, double eps,
                                   const std::vector<AdaptedLinear>& linears);

/// `down` on silu(gate) · up, both [T, I]. Saves gate, up and the product with A; the backward pass recomputes the
/// activation together with their gradients.
Tensor gated_linear(const Tensor& gate, const Tensor& up, const AdaptedLinear& down);

}  // namespace peft

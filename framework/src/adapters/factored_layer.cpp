#include "peft/adapters/factored_layer.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace peft {

Tensor FactoredLayer::forward(const Tensor& x, const Next& next) {
  const auto dtype = x.scalar_type();
  const Tensor dropped = drops() ? at::dropout(x, dropout_, /*train=*/true) : x;
  const auto [A, B, scale] = factors();
  return next(x).add(at::linear(at::linear(dropped, A.to(dtype)), B.to(dtype)), scale);
}

bool FactoredLayer::merge_into(WeightAndBias& weights) const {
  const torch::NoGradGuard no_grad;
  const auto dtype = weights.weight.scalar_type();
  const auto [A, B, scale] = factors();
  weights.weight.addmm_(B.to(dtype), A.to(dtype), 1, scale);
  return true;
}

std::optional<LowRank> FactoredLayer::as_lora() const {
  if (drops()) return std::nullopt;
  return factors();
}

}  // namespace peft

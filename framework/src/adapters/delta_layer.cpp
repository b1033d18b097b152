#include "peft/adapters/delta_layer.h"

#include <torch/types.h>
#include <torch/utils.h>

namespace peft {

Tensor DeltaLayer::forward(const Tensor& x, const Next& next) {
  const Tensor dropped = dropout_ > 0 && is_training() ? at::dropout(x, dropout_, /*train=*/true) : x;
  return next(x) + at::linear(dropped, delta(x.scalar_type()));
}

bool DeltaLayer::merge_into(WeightAndBias& weights) const {
  const torch::NoGradGuard no_grad;
  weights.weight += delta(weights.weight.scalar_type());
  return true;
}

}  // namespace peft

#pragma once

#include <peft/plugin.h>

#include <limits>

/// Multiplies the gradients, whose norm is `norm`, by max_norm / (norm + 1e-6) where that is below 1. In fp32 where the
/// gradients are, as torch's clip_grad_norm_ does it: the same bits.
inline void scale_to_norm(const std::vector<torch::Tensor>& gradients, double norm, double max_norm) {
  if (gradients.empty()) return;
  const bool wide = gradients.front().scalar_type() == torch::kFloat64 || norm > std::numeric_limits<float>::max();
  const double factor =
      wide ? max_norm / (norm + 1e-6) : static_cast<float>(max_norm) / (static_cast<float>(norm) + 1e-6F);
  if (factor < 1) at::_foreach_mul_(gradients, factor);
}

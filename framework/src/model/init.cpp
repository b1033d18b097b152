#include "peft/init.h"

#include <torch/torch.h>

#include <cmath>

namespace peft::init {

namespace {

Tensor placed(const Tensor& drawn, const at::TensorOptions& form) { return drawn.to(form.device(), form.dtype()); }

}  // namespace

Tensor uniform(at::IntArrayRef shape, double bound, const at::TensorOptions& form) {
  return placed(torch::empty(shape, torch::kFloat).uniform_(-bound, bound), form);
}

Tensor normal(at::IntArrayRef shape, double std, const at::TensorOptions& form) {
  return placed(torch::empty(shape, torch::kFloat).normal_(0, std), form);
}

Tensor kaiming_uniform(at::IntArrayRef shape, const at::TensorOptions& form) {
  double inputs = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) inputs *= static_cast<double>(shape[i]);
  return uniform(shape, 1 / std::sqrt(inputs), form);
}

Tensor zeros(at::IntArrayRef shape, const at::TensorOptions& form) { return torch::zeros(shape, form); }

}  // namespace peft::init

#include "peft/adapters/init.h"

#include <torch/types.h>

#include <cmath>

namespace peft::init {

namespace {

Tensor converted(const Tensor& drawn, const at::TensorOptions& tensor_options) {
  return drawn.to(tensor_options.device(), tensor_options.dtype());
}

}  // namespace

Tensor uniform(at::IntArrayRef shape, double bound, const at::TensorOptions& tensor_options) {
  return converted(torch::empty(shape, torch::kFloat).uniform_(-bound, bound), tensor_options);
}

Tensor normal(at::IntArrayRef shape, double std, const at::TensorOptions& tensor_options) {
  return converted(torch::empty(shape, torch::kFloat).normal_(0, std), tensor_options);
}

Tensor kaiming_uniform(at::IntArrayRef shape, const at::TensorOptions& tensor_options) {
  double inputs = 1;
  for (std::size_t i = 1; i < shape.size(); ++i) inputs *= static_cast<double>(shape[i]);
  return uniform(shape, 1 / std::sqrt(inputs), tensor_options);
}

Tensor zeros(at::IntArrayRef shape, const at::TensorOptions& tensor_options) {
  return torch::zeros(shape, tensor_options);
}

}  // namespace peft::init

#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

/// Initial values. All are drawn on the CPU in fp32, then converted to `tensor_options`, so that a seed gives the same
/// values on every device.
namespace peft::init {

/// Uniform in ±bound.
PEFT_API Tensor uniform(at::IntArrayRef shape, double bound, const at::TensorOptions& tensor_options);
/// Normal around 0.
PEFT_API Tensor normal(at::IntArrayRef shape, double std, const at::TensorOptions& tensor_options);
/// kaiming_uniform with a = √5, nn.Linear's default: uniform in ±1/√(product of all dimensions but the first).
PEFT_API Tensor kaiming_uniform(at::IntArrayRef shape, const at::TensorOptions& tensor_options);
PEFT_API Tensor zeros(at::IntArrayRef shape, const at::TensorOptions& tensor_options);

}  // namespace peft::init

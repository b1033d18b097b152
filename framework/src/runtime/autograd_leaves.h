#pragma once

#include <torch/autograd.h>

#include <vector>

#include "peft/runtime/tensors.h"

namespace peft {

using torch::autograd::Edge;

/// Where the autograd graph of `tensor` ends; without a function if it requires no gradient.
Edge gradient_edge_of(const Tensor& tensor);

/// The leaves that a backward pass from `ends` reaches without passing `begins`, each once. Leaves without elements are
/// left out.
std::vector<Tensor> leaves_between(const std::vector<Edge>& begins, const std::vector<Edge>& ends);

}  // namespace peft

#pragma once

#include <functional>

#include "peft/runtime/tensors.h"

namespace peft {

/// body(x), saving only x: the backward pass runs body again with the same random numbers and the same autocast (Chen
/// et al. 2016, arXiv 1604.06174). Other tensors that body uses get their gradients as usual if they are leaves.
/// Without gradient mode this is just body(x).
Tensor recomputed(const Tensor& x, const std::function<Tensor(const Tensor&)>& body);

}  // namespace peft

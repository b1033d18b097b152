#pragma once

#include <functional>

#include "peft/runtime/tensors.h"

namespace peft {

/// body(x), of which nothing but x is kept: the backward pass runs body again, with the same random numbers and the
/// same autocast (Chen et al. 2016, arXiv 1604.06174). What body uses besides x gets its gradients as always, if it is
/// a leaf. Where no gradient is wanted, just body(x).
Tensor recomputed(const Tensor& x, const std::function<Tensor(const Tensor&)>& body);

}  // namespace peft

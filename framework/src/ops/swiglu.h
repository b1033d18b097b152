#pragma once

#include <utility>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// silu(gate) · up, both of one shape (Shazeer 2020). The backward pass needs only the inputs.
PEFT_API Tensor swiglu(const Tensor& gate, const Tensor& up);

// Without autograd, for functions that write their own backward pass.

/// silu(gate) · up.
Tensor swiglu_forward(const Tensor& gate, const Tensor& up);
/// Gradients of gate and up. Writes silu(gate) · up to `y` if that is not null.
std::pair<Tensor, Tensor> swiglu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, Tensor* y = nullptr);

}  // namespace peft

#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

// The kernels of kernels.h as plain functions, for what writes its own backward pass.

/// rms_norm, and 1 / sqrt(mean(x²) + eps) of each row into `rstd`.
Tensor rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& rstd);
/// The gradient of x, plus `residual` where it is defined. Into `y`, where it is not null, the norm's output once more.
Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                         const Tensor& residual = {}, Tensor* y = nullptr);

/// silu(gate) · up.
Tensor swiglu_forward(const Tensor& gate, const Tensor& up);
/// The gradients of gate and up. Into `y`, where it is not null, their product once more.
std::pair<Tensor, Tensor> swiglu_backward(const Tensor& dy, const Tensor& gate, const Tensor& up, Tensor* y = nullptr);

/// sum += a · b, as product() multiplies.
void add_gemm(Tensor& sum, const Tensor& a, const Tensor& b);

}  // namespace peft

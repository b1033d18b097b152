#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// x / sqrt(mean(x²) + eps), rounded to x's dtype, times weight, as transformers' LlamaRMSNorm.
/// x: [..., H], weight: [H]. Computes in fp32, or in fp64 for fp64. The backward pass needs only the inputs and one
/// number for each row.
PEFT_API Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps);

// Without autograd, for functions that write their own backward pass.

/// rms_norm; writes 1 / sqrt(mean(x²) + eps) of each row to `rstd`.
Tensor rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& rstd);
/// Gradient of x, plus `residual` if it is defined. Writes the norm's output to `y` if that is not null.
Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                         const Tensor& residual = {}, Tensor* y = nullptr);

}  // namespace peft

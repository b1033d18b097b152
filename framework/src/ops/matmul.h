#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

// Matrix products. bf16 on a CPU without bf16 instructions is multiplied in fp32, a part of the larger matrix at a
// time, and rounded once: several times faster than torch's emulation. fp32 on a CPU is multiplied by fp32_products().

/// a [m, k] · b [k, n], without a gradient.
PEFT_API Tensor gemm(const Tensor& a, const Tensor& b);
/// sum += a · b, without a gradient.
PEFT_API void add_gemm(Tensor& sum, const Tensor& a, const Tensor& b);

/// x·Wᵀ + b, x: [..., in]. Is at::linear, except if weight and bias are frozen and gemm() is faster.
PEFT_API Tensor frozen_linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

}  // namespace peft

#pragma once

#include <string>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// The libraries that multiply fp32 matrices on a CPU: libtorch's BLAS (MKL on x86) and its oneDNN. In the last bits,
/// their results differ.
enum class Fp32Products { blas, onednn };

/// "blas" or "onednn".
PEFT_API const char* name(Fp32Products products);

/// What gemm() and the products of frozen layers use. At first oneDNN on processors on which it is faster, otherwise
/// BLAS; the environment variable PEFT_FP32_PRODUCTS overrides that. Throws ConfigError if its value names neither, or
/// if this libtorch has no oneDNN.
PEFT_API Fp32Products fp32_products();

/// Changes to the one with that name, if this libtorch has it and PEFT_FP32_PRODUCTS is not set; else back to the first
/// choice.
PEFT_API void choose_fp32_products(const std::string& name);

/// a · b by oneDNN. b or its transpose must be contiguous.
Tensor onednn_product(const Tensor& a, const Tensor& b);

}  // namespace peft

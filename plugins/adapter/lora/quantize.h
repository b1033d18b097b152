#pragma once

#include <torch/types.h>

namespace lora {

/// `weight` [out, in] after quantization and dequantization, in its own dtype. 4 bits: NF4 in blocks of 64 (Dettmers et
/// al. 2023, arXiv 2305.14314); 8 bits: integers, one scale for each row. Both as in bitsandbytes.
torch::Tensor quantize_dequantize(const torch::Tensor& weight, int64_t bits);

}  // namespace lora

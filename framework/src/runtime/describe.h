#pragma once

#include <string>

#include "peft/runtime/tensors.h"

namespace peft {

/// Dtype and shape for messages: "fp32 [11, 16]"; "an undefined tensor".
std::string describe(const Tensor& tensor);
std::string describe(torch::Dtype dtype, at::IntArrayRef sizes);

}  // namespace peft

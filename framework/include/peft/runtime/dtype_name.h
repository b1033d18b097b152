#pragma once

#include <torch/types.h>

#include <string>

namespace peft {

/// A dtype as people and the precision plugins call it: "fp32", "bf16", "fp16", "fp64"; else torch's name.
inline std::string dtype_name(torch::Dtype dtype) {
  switch (dtype) {
    case torch::kFloat32:
      return "fp32";
    case torch::kBFloat16:
      return "bf16";
    case torch::kFloat16:
      return "fp16";
    case torch::kFloat64:
      return "fp64";
    default:
      return c10::toString(dtype);
  }
}

}  // namespace peft

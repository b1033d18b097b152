#include "runtime/describe.h"

#include <torch/types.h>

#include <sstream>

namespace peft {

namespace {

std::string name_of(torch::Dtype dtype) {
  switch (dtype) {
    case torch::kDouble:
      return "fp64";
    case torch::kFloat:
      return "fp32";
    case torch::kHalf:
      return "fp16";
    case torch::kBFloat16:
      return "bf16";
    default:
      return c10::toString(dtype);
  }
}

}  // namespace

std::string describe(torch::Dtype dtype, at::IntArrayRef sizes) {
  std::ostringstream text;
  text << name_of(dtype) << " " << sizes;
  return text.str();
}

std::string describe(const Tensor& tensor) {
  return tensor.defined() ? describe(tensor.scalar_type(), tensor.sizes()) : "an undefined tensor";
}

}  // namespace peft

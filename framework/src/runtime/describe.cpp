#include "runtime/describe.h"

#include <torch/types.h>

#include <sstream>

#include "peft/runtime/dtype_name.h"

namespace peft {

std::string describe(torch::Dtype dtype, at::IntArrayRef sizes) {
  std::ostringstream text;
  text << dtype_name(dtype) << " " << sizes;
  return text.str();
}

std::string describe(const Tensor& tensor) {
  return tensor.defined() ? describe(tensor.scalar_type(), tensor.sizes()) : "an undefined tensor";
}

}  // namespace peft

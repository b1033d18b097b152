#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "peft/base/export.h"

namespace peft {

using torch::Tensor;
using NamedTensor = std::pair<std::string, Tensor>;
using NamedTensors = std::vector<NamedTensor>;
/// Tensors by name, as in a checkpoint or an adapter file.
using StateDict = std::map<std::string, Tensor>;

/// The dtype in which sums over `tensor` are computed: fp64 for fp64, else fp32.
inline torch::Dtype accumulation_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
}

/// Why `given` cannot be loaded into `wanted`: missing and unexpected tensors, wrong shapes and dtypes, NaN and
/// infinity. One line each, which starts with a line break ("\n  missing: NAME"); "" if it can be loaded.
PEFT_API std::string describe_mismatch(const StateDict& wanted, const StateDict& given);

}  // namespace peft

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
/// Name → tensor: what a checkpoint keeps of a part, and what an adapter file holds.
using StateDict = std::map<std::string, Tensor>;

/// The dtype in which sums over `tensor` are computed: fp64 for fp64, else fp32.
inline torch::Dtype accumulation_dtype(const Tensor& tensor) {
  return tensor.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
}

/// What keeps `given` from being loaded into `wanted`: missing, unexpected and wrongly shaped tensors and those with
/// NaN or infinity, a line each ("\n  missing: NAME"); "" if nothing does.
PEFT_API std::string describe_mismatch(const StateDict& wanted, const StateDict& given);

}  // namespace peft

#pragma once

#include <torch/types.h>

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace peft {

using torch::Tensor;
using NamedTensor = std::pair<std::string, Tensor>;
using NamedTensors = std::vector<NamedTensor>;
/// Name → tensor: what a checkpoint keeps of a part, and what an adapter file holds.
using State = std::map<std::string, Tensor>;

}  // namespace peft

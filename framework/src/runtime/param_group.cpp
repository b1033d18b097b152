#include "peft/runtime/param_group.h"

namespace peft {

std::vector<Tensor> parameters_of(const std::vector<ParamGroup>& groups) {
  std::vector<Tensor> all;
  for (const ParamGroup& group : groups)
    for (const auto& [name, parameter] : group.parameters) all.push_back(parameter);
  return all;
}

}  // namespace peft

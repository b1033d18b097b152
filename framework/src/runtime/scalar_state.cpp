#include "peft/runtime/scalar_state.h"

#include <torch/types.h>

#include <cmath>

#include "peft/base/error.h"

namespace peft {

void ScalarState::put(const std::string& name, double value) { state_[name] = torch::tensor(value, torch::kDouble); }

double ScalarState::at(const std::string& name) const {
  const auto it = state_.find(name);
  if (it == state_.end() || it->second.scalar_type() != torch::kDouble || it->second.numel() != 1)
    throw InputError("lacks the number '" + name + "'");
  return it->second.item<double>();
}

int64_t ScalarState::count(const std::string& name) const {
  const double value = at(name);
  if (!(value >= 0 && value < 9e15) || value != std::floor(value))
    throw InputError("the number '" + name + "' is not a count");
  return static_cast<int64_t>(value);
}

}  // namespace peft

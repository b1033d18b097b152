#pragma once

#include <cstdint>
#include <string>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Numbers stored in a StateDict as fp64 scalars, exact to the last bit.
class PEFT_API ScalarState {
 public:
  ScalarState() = default;
  explicit ScalarState(StateDict state) : state_(std::move(state)) {}
  void put(const std::string& name, double value);
  bool has(const std::string& name) const { return state_.contains(name); }
  /// Throws InputError if it does not exist.
  double at(const std::string& name) const;
  /// An integer >= 0. Throws InputError for any other value.
  int64_t count(const std::string& name) const;
  const StateDict& state_dict() const { return state_; }

 private:
  StateDict state_;
};

}  // namespace peft

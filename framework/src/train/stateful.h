#pragma once

#include <functional>
#include <string>
#include <vector>

#include "peft/runtime/tensors.h"
#include "peft/train/checkpoint.h"
#include "peft/train/scheduler.h"
#include "plugin/plugin_call.h"

namespace peft {

/// A part of a run that has a state: what a checkpoint keeps of it, under its name.
struct Part {
  std::string name;
  std::function<StateDict()> state;
  std::function<void(const StateDict&)> load;
};

template <class Stateful>
Part part(const std::string& name, Stateful& of) {
  return {name, [&of] { return detail::call_plugin(of, "state", [&] { return of.state_dict(); }); },
          [&of](const StateDict& state) { detail::call_plugin(of, "load", [&] { of.load(state); }); }};
}
/// The random numbers of the CPU and of `device`.
Part random_part(torch::Device device);

/// The schedule's numbers.
Part scheduler_part(Scheduler& scheduler);

RunState states_of(const std::vector<Part>& parts);
/// Every part gets its state. Throws InputError where one is missing, or `states` has one more.
void load_states(const std::vector<Part>& parts, const RunState& states);

/// Numbers as a state, exact to the last bit, and back. `at` throws InputError where there is no such number.
struct Numbers {
  StateDict state;
  void put(const std::string& name, double value);
  double at(const std::string& name) const;
  int64_t count(const std::string& name) const;  ///< a whole number, 0 or more
  bool has(const std::string& name) const { return state.contains(name); }
};

}  // namespace peft

#pragma once
// The state of a run's components, as a checkpoint stores it.

#include <functional>
#include <string>
#include <vector>

#include "peft/runtime/tensors.h"
#include "peft/train/checkpoint.h"

namespace peft {

/// A component of a run whose state a checkpoint stores under its name.
struct StatefulComponent {
  std::string name;
  std::function<StateDict()> state_dict;
  std::function<void(const StateDict&)> load_state_dict;
  bool optional = false;  ///< an empty state is not stored, and a checkpoint may lack it
};

/// Of any object with the methods state_dict() and load_state_dict(); it must outlive the result.
template <class Component>
StatefulComponent component(const std::string& name, Component& object) {
  return {name, [&object] { return object.state_dict(); },
          [&object](const StateDict& state) { object.load_state_dict(state); }, false};
}
/// As component(), for one that checkpoints of earlier versions do not have.
template <class Component>
StatefulComponent optional_component(const std::string& name, Component& object) {
  StatefulComponent result = component(name, object);
  result.optional = true;
  return result;
}
/// The random number generators of the CPU and of `device`.
StatefulComponent random_component(torch::Device device);

RunState states_of(const std::vector<StatefulComponent>& components);
/// Restores every component. Throws InputError where a state is missing, or `states` has one without a component.
void load_states(const std::vector<StatefulComponent>& components, const RunState& states);

}  // namespace peft

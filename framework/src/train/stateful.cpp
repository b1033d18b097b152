#include "train/stateful.h"

#include <algorithm>

#include "peft/base/error.h"
#include "runtime/rng_state.h"

namespace peft {

namespace {

void restore_random(torch::Device device, const StateDict& state, const std::string& name) {
  const auto it = state.find(name);
  if (it == state.end() || it->second.scalar_type() != torch::kByte ||
      it->second.sizes() != random_state(device).sizes())
    throw InputError("the checkpoint's random state of '" + name + "' is not of this libtorch");
  set_random_state(device, it->second);
}

}  // namespace

StatefulComponent random_component(torch::Device device) {
  return {"random",
          [device] {
            StateDict state{{"cpu", random_state(torch::kCPU)}};
            if (!device.is_cpu()) state["device"] = random_state(device);
            return state;
          },
          [device](const StateDict& state) {
            restore_random(torch::kCPU, state, "cpu");
            if (!device.is_cpu()) restore_random(device, state, "device");
          },
          false};
}

RunState states_of(const std::vector<StatefulComponent>& components) {
  RunState states;
  for (const StatefulComponent& component : components) {
    StateDict state = component.state_dict();
    if (!component.optional || !state.empty()) states[component.name] = std::move(state);
  }
  return states;
}

namespace {

void load_state(const StatefulComponent& component, const StateDict& state) {
  try {
    component.load_state_dict(state);
  } catch (const InputError& error) {
    throw InputError(
        "the checkpoint's " + component.name + ".safetensors: " + error.what() +
        "; the file was changed, or this version of the component saves another state: resume from another "
        "checkpoint, or start a new run with [adapter] init_from");
  }
}

}  // namespace

void load_states(const std::vector<StatefulComponent>& components, const RunState& states) {
  for (const auto& [name, state] : states)
    if (std::none_of(components.begin(), components.end(),
                     [&](const auto& component) { return component.name == name; }))
      throw InputError("the checkpoint has a state of '" + printable(name) + "', but this run has no such component");
  for (const StatefulComponent& component : components) {
    const auto it = states.find(component.name);
    if (it == states.end() && component.optional) continue;
    if (it == states.end()) throw InputError("the checkpoint lacks the state of '" + component.name + "'");
    // Both are empty for an optimizer before its first step, which would refuse to load nothing.
    if (!it->second.empty() || !component.state_dict().empty()) load_state(component, it->second);
  }
}

}  // namespace peft

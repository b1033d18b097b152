#include "train/stateful.h"

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "peft/base/error.h"
#include "runtime/rng_state.h"

namespace peft {

namespace {

void set(torch::Device device, const StateDict& state, const std::string& name) {
  const auto it = state.find(name);
  const Tensor own = random_state(device);
  if (it == state.end() || it->second.scalar_type() != torch::kByte || it->second.sizes() != own.sizes())
    throw InputError("the checkpoint's random state of '" + name + "' is not of this libtorch");
  set_random_state(device, it->second);
}

}  // namespace

Part random_part(torch::Device device) {
  return {"random",
          [device] {
            StateDict state{{"cpu", random_state(torch::kCPU)}};
            if (!device.is_cpu()) state["device"] = random_state(device);
            return state;
          },
          [device](const StateDict& state) {
            set(torch::kCPU, state, "cpu");
            if (!device.is_cpu()) set(device, state, "device");
          }};
}

Part scheduler_part(Scheduler& scheduler) {
  return {"scheduler",
          [&scheduler] {
            Numbers out;
            for (const auto& [name, value] :
                 detail::call_plugin(scheduler, "state", [&] { return scheduler.state_dict(); }))
              out.put(name, value);
            return out.state;
          },
          [&scheduler](const StateDict& state) {
            const Numbers in{state};
            std::map<std::string, double> numbers;
            for (const auto& [name, tensor] : state) numbers[name] = in.at(name);
            detail::call_plugin(scheduler, "load", [&] { scheduler.load(numbers); });
          }};
}

RunState states_of(const std::vector<Part>& parts) {
  RunState states;
  for (const Part& part : parts) states[part.name] = part.state_dict();
  return states;
}

void load_states(const std::vector<Part>& parts, const RunState& states) {
  for (const auto& [name, state] : states)
    if (std::none_of(parts.begin(), parts.end(), [&](const Part& part) { return part.name == name; }))
      throw InputError("the checkpoint holds a state of '" + printable(name) + "', which this run has not");
  for (const Part& part : parts) {
    const auto it = states.find(part.name);
    if (it == states.end()) throw InputError("the checkpoint lacks the state of '" + part.name + "'");
    if (!it->second.empty() || !part.state_dict().empty()) part.load(it->second);  // an optimizer before its first step
  }
}

void Numbers::put(const std::string& name, double value) { state[name] = torch::tensor(value, torch::kDouble); }

double Numbers::at(const std::string& name) const {
  const auto it = state.find(name);
  if (it == state.end() || it->second.scalar_type() != torch::kDouble || it->second.numel() != 1)
    throw InputError("the checkpoint lacks the number '" + name + "'");
  return it->second.item<double>();
}

int64_t Numbers::count(const std::string& name) const {
  const double value = at(name);
  if (!(value >= 0 && value < 9e15) || value != std::floor(value))
    throw InputError("the checkpoint's number '" + name + "' is no count");
  return static_cast<int64_t>(value);
}

}  // namespace peft

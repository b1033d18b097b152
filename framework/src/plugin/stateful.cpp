#include "peft/plugin/stateful.h"

#include "peft/base/error.h"
#include "plugin/plugin_call.h"

namespace peft {

Stateful::~Stateful() = default;

StateDict Stateful::state_dict() const {
  return detail::call_plugin(*this, "state_dict", [&] { return do_state_dict(); });
}

void Stateful::load_state_dict(const StateDict& state) {
  detail::call_plugin(*this, "load_state_dict", [&] { do_load_state_dict(state); });
}

StateDict Stateful::do_state_dict() const { return {}; }

void Stateful::do_load_state_dict(const StateDict& state) {
  if (!state.empty()) throw InputError("the checkpoint has a state for a plugin that has none");
}

}  // namespace peft

#include "peft/nn/virtual_tokens.h"

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

VirtualTokens::~VirtualTokens() = default;

int64_t VirtualTokens::count() const {
  return call_plugin(*this, "count", [&] { return do_count(); });
}

Tensor VirtualTokens::rows() const {
  return call_plugin(*this, "rows", [&] { return do_rows(); });
}

VirtualKeys::~VirtualKeys() = default;

int64_t VirtualKeys::count() const {
  return call_plugin(*this, "count", [&] { return do_count(); });
}

KeysAndValues VirtualKeys::keys_and_values() const {
  return call_plugin(*this, "keys_and_values", [&] { return do_keys_and_values(); });
}

Tensor VirtualKeys::gate() const {
  return call_plugin(*this, "gate", [&] { return do_gate(); });
}

Tensor VirtualKeys::do_gate() const { return {}; }

}  // namespace peft

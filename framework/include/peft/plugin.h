#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/adapter.h"
#include "peft/clipping.h"
#include "peft/export.h"
#include "peft/optimizer.h"
#include "peft/options.h"
#include "peft/precision.h"
#include "peft/registry.h"
#include "peft/scheduler.h"

namespace peft {

/// What a plugin exports as the C symbol `peft_plugin_v1`; constant data.
struct PluginInfo {
  const char* abi;          ///< PEFT_ABI as compiled into the plugin
  const char* name;
  const char* version;
  void (*add)(Registry&);   ///< registers the plugin's factories; may throw
};

}  // namespace peft

// TODO(plugin part): PEFT_ABI and the record that is read before the library is loaded.
#define PEFT_ABI "1"

/// The whole declaration of a plugin, the last line of its source:  PEFT_PLUGIN("lora", "1.0.0", add)
#define PEFT_PLUGIN(name_, version_, add_) \
  extern "C" PEFT_API const peft::PluginInfo peft_plugin_v1 = {PEFT_ABI, name_, version_, add_};

#pragma once

#include "peft/base/export.h"
#include "peft/plugin/abi.h"

namespace peft {

class Registry;

/// Constant data that a plugin exports as the C symbol `peft_plugin_v1`.
struct PluginInfo {
  const char* abi;  ///< PEFT_ABI as compiled into the plugin
  const char* name;
  const char* version;
  void (*add)(Registry&);  ///< registers the plugin's factory; may throw
};

}  // namespace peft

extern "C" PEFT_API const peft::PluginInfo peft_plugin_v1;

// `retain` keeps the record where the linker drops unused sections.
#if __has_attribute(retain)
#define PEFT_PLUGIN_SECTION __attribute__((section(".peft_plugin"), used, retain))
#else
#define PEFT_PLUGIN_SECTION __attribute__((section(".peft_plugin"), used))
#endif

/// Declares a plugin, in the last line of its source:  PEFT_PLUGIN("lora", "1.0.0", add)
/// The name is that of the file, peft_<kind>_<name>.so. The record is read before any code in the file can run.
#define PEFT_PLUGIN(name_, version_, add_)                                                                          \
  PEFT_PLUGIN_SECTION static const char peft_plugin_record[] = "peft plugin 1\0" PEFT_ABI "\0" name_ "\0" version_; \
  const peft::PluginInfo peft_plugin_v1 = {PEFT_ABI, name_, version_, add_};

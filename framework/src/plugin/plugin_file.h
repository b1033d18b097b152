#pragma once
// The record in a plugin's file, read without running any code in it.

#include <cstdint>
#include <string>

namespace peft::detail {

/// The record that PEFT_PLUGIN leaves in the section `.peft_plugin`.
struct PluginRecord {
  std::string abi, name, version;
  uint64_t info_bytes;  ///< size of its peft_plugin_v1
};

/// Throws PluginError for a file that ElfFile rejects, and for one without a record or a peft_plugin_v1.
PluginRecord read_plugin_record(const std::string& file);

}  // namespace peft::detail

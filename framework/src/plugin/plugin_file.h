#pragma once
// What a plugin says about itself, read from its file: nothing in it has run yet.

#include <cstdint>
#include <string>

namespace peft::detail {

/// The record that PEFT_PLUGIN leaves in the section `.peft_plugin`.
struct PluginRecord {
  std::string abi, name, version;
  uint64_t info_bytes;  ///< size of its peft_plugin_v1
};

/// Throws PluginError for what ElfFile refuses, for a file without a record and for one without a peft_plugin_v1.
PluginRecord read_plugin_record(const std::string& file);

}  // namespace peft::detail

#pragma once
// A plugin as a file: whether it may be trusted and what it says about itself, without running anything in it.

#include <string>

namespace peft::detail {

/// The record that PEFT_PLUGIN leaves in the section `.peft_plugin`.
struct PluginRecord {
  std::string abi, name, version;
};

/// Throws PluginError unless `folder` is a directory of root or the effective user that nobody else may write.
void check_trusted_folder(const std::string& folder);

/// Opens a plugin, and reads its record. Throws PluginError for what is not a regular file of root or the effective
/// user that nobody else may write, not a whole ELF library of this machine, or holds no record.
PluginRecord read_plugin_record(const std::string& file);

}  // namespace peft::detail

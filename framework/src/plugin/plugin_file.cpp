#include "plugin/plugin_file.h"

#include <vector>

#include "peft/base/error.h"
#include "plugin/elf_file.h"

namespace peft::detail {

PluginRecord read_plugin_record(const std::string& path) {
  constexpr uint64_t max_record = 4096;
  const auto refuse = [&](const std::string& why) {
    throw PluginError(printable_path(path) + ": not a peft plugin" + why);
  };
  const ElfFile file(path);
  const auto bytes = file.section(".peft_plugin", max_record);
  if (!bytes) refuse(": it has no record of PEFT_PLUGIN");
  std::vector<std::string> fields(1);
  for (const char c : *bytes) {
    if (c == '\0')
      fields.emplace_back();
    else
      fields.back() += c;
  }
  // Four zero-terminated strings.
  if (fields.size() != 5 || !fields.back().empty() || fields[0] != "peft plugin 1")
    refuse(" that this peft knows: its record is '" + printable(fields[0]) + "', not 'peft plugin 1'");
  const auto info_bytes = file.exported_bytes("peft_plugin_v1");
  if (!info_bytes) refuse(": it does not export peft_plugin_v1");
  return {fields[1], fields[2], fields[3], *info_bytes};
}

}  // namespace peft::detail

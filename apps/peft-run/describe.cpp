#include <torch/types.h>

#include <algorithm>
#include <iostream>

#include "commands.h"
#include "peft/base/error.h"
#include "peft/plugin/plugins.h"

namespace {

using peft::OptionInfo;
using Options = std::vector<OptionInfo>;

/// A bar would end the cell.
std::string cell(std::string text) {
  for (std::size_t at = 0; (at = text.find('|', at)) != std::string::npos; at += 2) text.insert(at, 1, '\\');
  return text;
}

void print(const Options& options, bool markdown) {
  if (options.empty()) {
    std::cout << (markdown ? "No options.\n" : "  no options\n");
    return;
  }
  if (markdown) {
    std::cout << "| key | type | default | meaning |\n|---|---|---|---|\n";
    for (const OptionInfo& option : options) {
      const char* quote = option.default_value.empty() ? "" : "`";
      std::cout << "| `" << option.key << "` | " << option.type << " | " << quote << cell(option.default_value) << quote
                << " | " << cell(option.help) << " |\n";
    }
    return;
  }
  std::size_t width = 0;
  for (const OptionInfo& option : options) width = std::max(width, option.key.size());
  for (const OptionInfo& option : options)
    std::cout << "  " << option.key << std::string(width + 2 - option.key.size(), ' ') << option.type << ", "
              << (option.default_value.empty() ? "unset" : "default " + option.default_value) << "\n"
              << std::string(width + 4, ' ') << option.help << "\n";
}

void print_plugin(peft::Plugins& plugins, const std::string& kind, const std::string& name, bool markdown) {
  const Options options = plugins.describe(kind, name);
  std::cout << (markdown ? "\n### `" : "") << kind << "/" << name << (markdown ? "`\n\n" : "\n");
  print(options, markdown);
}

void print_table(const CoreTable& table, bool markdown) {
  std::cout << (markdown ? "\n## `[" : "[") << table.name << (markdown ? "]`\n\n" : "]\n") << table.purpose
            << (markdown ? "\n\n" : "\n");
  print(table.options, markdown);
}

/// The core's tables, then every plugin that works, by kind.
void print_everything(peft::Plugins& plugins, bool markdown) {
  if (markdown)
    std::cout << "# Every table and key of an experiment\n\nWritten by `tools/docs` from `peft-run describe`; a table "
                 "with a `name` chooses a plugin, whose options are its other keys.\n";
  for (const CoreTable& table : core_tables()) {
    print_table(table, markdown);
    if (!markdown) std::cout << "\n";
  }
  std::string kind;
  for (const peft::PluginStatus& plugin : plugins.scan()) {
    if (!plugin.problem.empty()) continue;
    if (markdown && plugin.kind != kind) std::cout << "\n## `[" << plugin.kind << "]`: plugins\n";
    kind = plugin.kind;
    try {
      print_plugin(plugins, plugin.kind, plugin.name, markdown);
    } catch (const peft::Error& error) {
      std::cout << plugin.kind << "/" << plugin.name << "\n  not usable: " << error.what() << "\n";
    }
    if (!markdown) std::cout << "\n";
  }
}

}  // namespace

int describe_command(const DescribeArguments& arguments) {
  peft::Plugins plugins(peft::Plugins::search_path(arguments.plugin_paths));
  if (arguments.what.empty()) {
    print_everything(plugins, arguments.markdown);
    return 0;
  }
  if (const std::size_t slash = arguments.what.find('/'); slash != std::string::npos) {
    print_plugin(plugins, arguments.what.substr(0, slash), arguments.what.substr(slash + 1), arguments.markdown);
    return 0;
  }
  peft::StringList names;
  for (const CoreTable& table : core_tables()) {
    names.push_back(table.name);
    if (table.name != arguments.what) continue;
    print_table(table, arguments.markdown);
    return 0;
  }
  std::string known;
  for (const std::string& name : names) known += (known.empty() ? "" : ", ") + name;
  throw peft::ConfigError("nothing to describe as '" + peft::printable(arguments.what) +
                          "': write KIND/NAME of a plugin ('peft-run list' shows them), or one of: " + known);
}

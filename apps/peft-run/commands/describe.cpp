#include <torch/types.h>

#include <algorithm>
#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "peft/base/error.h"
#include "peft/experiment/experiment.h"
#include "peft/plugin/plugins.h"

namespace {

using peft::OptionInfo;
using Options = std::vector<OptionInfo>;

/// Escapes bars, which would end the cell.
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

void print_table(const peft::CoreTable& table, bool markdown) {
  std::cout << (markdown ? "\n## `[" : "[") << table.name << (markdown ? "]`\n\n" : "]\n") << table.purpose
            << (markdown ? "\n\n" : "\n");
  print(table.options, markdown);
}

/// The core's tables, then every usable plugin, by kind.
void print_everything(peft::Plugins& plugins, bool markdown) {
  if (markdown)
    std::cout << "# Every table and key of an experiment\n\n`tools/docs` generates this page from `peft-run describe`. "
                 "In a table "
                 "with the key `name` this key chooses a plugin, and the other keys are the plugin's options.\n";
  for (const peft::CoreTable& table : peft::core_tables()) {
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

Outcome describe_command(const peft::StringList& words) {
  std::string what;  // "kind/name" of a plugin, a table of the core, or "" for everything
  bool markdown = false;
  peft::StringList plugin_paths;
  Arguments arguments(
      "describe [KIND/NAME | TABLE] [--markdown] [--plugin-path DIR]...\n"
      "e.g. adapter/lora or training; without it: everything");
  arguments.plugin_path(plugin_paths);
  arguments.flag("markdown", markdown, "as the page docs/experiment.md");
  arguments.positional(what);
  if (!arguments.parse(words)) return {};

  peft::Plugins plugins(peft::Plugins::search_path(plugin_paths));
  if (what.empty()) {
    print_everything(plugins, markdown);
    return {};
  }
  if (const std::size_t slash = what.find('/'); slash != std::string::npos) {
    print_plugin(plugins, what.substr(0, slash), what.substr(slash + 1), markdown);
    return {};
  }
  std::string tables;
  for (const peft::CoreTable& table : peft::core_tables()) {
    tables += (tables.empty() ? "" : ", ") + table.name;
    if (table.name != what) continue;
    print_table(table, markdown);
    return {};
  }
  throw peft::ConfigError("cannot describe '" + peft::printable(what) +
                          "': write KIND/NAME of a plugin ('peft-run list' shows them), or a table: " + tables);
}

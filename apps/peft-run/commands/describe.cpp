#include <torch/types.h>

#include <algorithm>
#include <iostream>
#include <utility>

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

/// "kind/name" of each plugin file of that name.
peft::StringList plugins_named(peft::Plugins& plugins, const std::string& name) {
  peft::StringList found;
  for (const std::string& kind : peft::plugin_kind_names())
    if (plugins.missing(kind, name).empty()) found.push_back(kind + "/" + name);
  return found;
}

/// The plugin that `what` means, as kind and name: "adapter/lora", or a name that only one kind has.
std::pair<std::string, std::string> find_plugin(peft::Plugins& plugins, const std::string& what) {
  std::string full = what;
  if (what.find('/') == std::string::npos) {
    const peft::StringList found = plugins_named(plugins, what);
    if (found.size() > 1) {
      std::string all;
      for (const std::string& plugin : found) all += (all.empty() ? "" : " or ") + plugin;
      throw peft::ConfigError("there are several plugins '" + peft::printable(what) + "'; write " + all);
    }
    if (found.empty()) return {};
    full = found.front();
  }
  const std::size_t slash = full.find('/');
  return {full.substr(0, slash), full.substr(slash + 1)};
}

/// What is near to `what` among tables, kinds and plugins, or what another tool's name is called here.
std::string advice(peft::Plugins& plugins, const std::string& what, const peft::StringList& tables) {
  peft::StringList known = tables;
  for (const std::string& kind : peft::plugin_kind_names()) {
    known.push_back(kind);
    if (const std::string hint = plugins.name_hints().of_plugin(kind, what); !hint.empty()) return hint;
  }
  for (const peft::PluginStatus& plugin : plugins.scan()) known.push_back(plugin.name);
  const std::string near = peft::nearest(what, known);
  return near.empty() ? "write a plugin ('peft-run list' shows them), a kind or a table of an experiment"
                      : "did you mean '" + near + "'?";
}

/// Prints the table, the kind's plugins, or both: "adapter" is a table of the core and a kind. False if it is neither.
bool print_table_and_kind(peft::Plugins& plugins, const std::string& what, bool markdown) {
  bool found = false;
  for (const peft::CoreTable& table : peft::core_tables())
    if (table.name == what) {
      print_table(table, markdown);
      found = true;
    }
  const peft::StringList kinds = peft::plugin_kind_names();
  if (std::find(kinds.begin(), kinds.end(), what) == kinds.end()) return found;
  for (const peft::PluginStatus& plugin : plugins.scan()) {
    if (plugin.kind != what || !plugin.problem.empty()) continue;
    if (!markdown && found) std::cout << "\n";
    print_plugin(plugins, plugin.kind, plugin.name, markdown);
    found = true;
  }
  return true;
}

}  // namespace

Outcome describe_command(const peft::StringList& words) {
  std::string what;  // a plugin, a kind, a table, or "" for everything
  bool markdown = false, example = false;
  peft::StringList plugin_paths;
  Arguments arguments(
      "describe [KIND/NAME | NAME | KIND | TABLE] [--example] [--markdown] [--plugin-path DIR]...\n"
      "e.g. lora, optimizer or training; without it: everything");
  arguments.plugin_path(plugin_paths);
  arguments.flag("example", example, "an experiment with the plugin, to copy");
  arguments.flag("markdown", markdown, "as the page docs/experiment.md");
  arguments.positional(what);
  if (!arguments.parse(words)) return {};
  arguments.require(!example || !what.empty(), "--example needs a plugin, such as adapter/lora");

  peft::Plugins plugins(peft::Plugins::search_path(plugin_paths));
  if (what.empty()) {
    print_everything(plugins, markdown);
    return {};
  }
  if (!example && print_table_and_kind(plugins, what, markdown)) return {};
  const auto [kind, name] = find_plugin(plugins, what);
  if (!kind.empty()) {
    if (example)
      std::cout << plugins.example(kind, name);
    else
      print_plugin(plugins, kind, name, markdown);
    return {};
  }
  peft::StringList tables;
  for (const peft::CoreTable& table : peft::core_tables()) tables.push_back(table.name);
  throw peft::ConfigError("cannot describe '" + peft::printable(what) + "'; " + advice(plugins, what, tables));
}

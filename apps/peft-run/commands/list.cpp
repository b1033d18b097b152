#include <torch/types.h>

#include <algorithm>
#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "peft/base/error.h"
#include "peft/plugin/plugins.h"

namespace {

std::string padded(const std::string& text, std::size_t width) {
  return text + std::string(width > text.size() ? width - text.size() : 0, ' ');
}

}  // namespace

Outcome list_command(const peft::StringList& words) {
  peft::StringList plugin_paths;
  Arguments arguments("list [--plugin-path DIR]...");
  arguments.plugin_path(plugin_paths);
  if (!arguments.parse(words)) return {};

  const peft::StringList folders = peft::Plugins::search_path(plugin_paths);
  const auto all = peft::Plugins(folders).scan();
  std::size_t kind = 4, name = 4, version = 7;
  for (const peft::PluginStatus& plugin : all) {
    kind = std::max(kind, plugin.kind.size());
    name = std::max(name, plugin.name.size());
    version = std::max(version, plugin.version.size());
  }
  const auto row = [&](const std::string& a, const std::string& b, const std::string& c, const std::string& d) {
    std::cout << padded(a, kind) << "  " << padded(b, name) << "  " << padded(c, version) << "  " << d << "\n";
  };
  row("KIND", "NAME", "VERSION", "FILE");
  bool broken = false;
  for (const peft::PluginStatus& plugin : all) {
    if (plugin.problem.empty()) row(plugin.kind, plugin.name, plugin.version, peft::printable_path(plugin.file));
    broken |= !plugin.problem.empty();
  }
  if (broken) std::cout << "\nnot usable:\n";
  for (const peft::PluginStatus& plugin : all) {
    if (plugin.problem.empty()) continue;
    const std::string file = peft::printable_path(plugin.file);
    const bool names_file = plugin.problem.starts_with(file);
    std::cout << "  " << (names_file ? "" : file + ": ") << plugin.problem << "\n";
  }
  std::cout << "\nsearched:\n";
  for (const std::string& folder : folders) std::cout << "  " << peft::printable_path(folder) << "\n";
  return {};
}

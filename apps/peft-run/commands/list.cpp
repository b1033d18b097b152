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

void check_kind(const std::string& kind) {
  const peft::StringList kinds = peft::plugin_kind_names();
  if (kind.empty() || std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) return;
  std::string known;
  for (const std::string& name : kinds) known += (known.empty() ? "" : ", ") + name;
  const std::string near = peft::nearest(kind, kinds);
  throw peft::ConfigError("unknown plugin kind '" + peft::printable(kind) + "'; " +
                          (near.empty() ? "kinds: " + known : "did you mean '" + near + "'?"));
}

}  // namespace

Outcome list_command(const peft::StringList& words) {
  std::string only;  // a kind, or "" for all
  peft::StringList plugin_paths;
  Arguments arguments("list [KIND] [--plugin-path DIR]...");
  arguments.plugin_path(plugin_paths);
  arguments.positional(only);
  if (!arguments.parse(words)) return {};
  check_kind(only);

  const peft::StringList folders = peft::Plugins::search_path(plugin_paths);
  auto all = peft::Plugins(folders).scan();
  if (!only.empty()) std::erase_if(all, [&](const peft::PluginStatus& plugin) { return plugin.kind != only; });
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

#include "peft/plugin/plugins.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include "files/trusted_path.h"
#include "peft/base/error.h"
#include "peft/plugin/plugin_info.h"
#include "plugin/active_plugin.h"
#include "plugin/library.h"
#include "plugin/plugin_call.h"
#include "plugin/plugin_file.h"

namespace peft {
namespace {

namespace fs = std::filesystem;

std::string joined(const StringList& list, const char* separator = ", ") {
  std::string out;
  for (const std::string& item : list) out += (out.empty() ? "" : separator) + item;
  return out.empty() ? "none" : out;
}

StringList all_printable(StringList list) {
  for (std::string& item : list) item = printable_path(item);
  return list;
}

std::string file_name(const std::string& kind, const std::string& name) { return "peft_" + kind + "_" + name + ".so"; }

bool is_plugin_name(const std::string& name) {
  return !name.empty() && name.size() <= 100 &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
}

/// Kind and name in a file name; an empty kind if it is not a plugin's name.
std::pair<std::string, std::string> kind_and_name(const std::string& file) {
  if (!file.starts_with("peft_") || !file.ends_with(".so")) return {};
  const std::string middle = file.substr(5, file.size() - 8);
  const std::size_t bar = middle.find('_');
  if (bar == std::string::npos) return {middle, ""};
  return {middle.substr(0, bar), middle.substr(bar + 1)};
}

constexpr const char* hints_suffix = ".hints.toml";

/// Entries of a folder, sorted; none if it does not exist.
std::vector<fs::path> files_in(const std::string& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    files.push_back(entry->path());
  std::sort(files.begin(), files.end());
  return files;
}

/// Those that are named like plugins.
std::vector<fs::path> plugin_files(const std::string& folder) {
  std::vector<fs::path> files = files_in(folder);
  std::erase_if(files, [](const fs::path& file) { return kind_and_name(file.filename().string()).first.empty(); });
  return files;
}

/// "" if a kind has that name, else an error message.
std::string kind_problem(const std::string& kind) {
  const StringList kinds = plugin_kind_names();
  if (std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) return "";
  return "unknown plugin kind '" + printable(kind) + "'; kinds: " + joined(kinds);
}

}  // namespace

StringList plugin_kind_names() {
  StringList names;
  for_each_plugin_kind([&](auto kind) { names.push_back(kind.name); });
  return names;
}

struct Plugins::Loaded {
  PluginStatus status;
  Registry registry;
};

Plugins::Plugins(StringList search_path) : search_path_(std::move(search_path)) {
  for (const std::string& folder : search_path_)
    if (!fs::path(folder).is_absolute())
      throw PluginError("plugin folder '" + printable(folder) + "': must be an absolute path");
}
Plugins::~Plugins() = default;

StringList Plugins::search_path(const StringList& from_toml) {
  StringList folders = from_toml;
  const char* variable = std::getenv("PEFT_PLUGIN_PATH");
  std::string rest = variable == nullptr ? "" : variable;
  while (!rest.empty()) {
    const std::size_t colon = std::min(rest.find(':'), rest.size());
    const std::string folder = rest.substr(0, colon);
    if (!fs::path(folder).is_absolute())
      throw PluginError("PEFT_PLUGIN_PATH: '" + printable(folder) + "' must be an absolute path");
    folders.push_back(folder);
    rest.erase(0, colon + 1);
  }
  folders.push_back((fs::path(detail::folder_of_libpeft()) / "peft" / "plugins").string());
  return folders;
}

std::string Plugins::find(const std::string& kind, const std::string& name) const {
  std::error_code error;
  for (const std::string& folder : search_path_) {
    const fs::path file = fs::path(folder) / file_name(kind, name);
    if (is_plugin_name(name) && fs::symlink_status(file, error).type() != fs::file_type::not_found)
      return file.string();
  }
  return "";
}

std::string Plugins::missing(const std::string& kind, const std::string& name) const {
  if (!find(kind, name).empty()) return "";
  StringList found;
  for (const std::string& folder : search_path_)
    for (const fs::path& file : plugin_files(folder)) {
      const auto [other_kind, other_name] = kind_and_name(file.filename().string());
      if (other_kind == kind && std::find(found.begin(), found.end(), other_name) == found.end())
        found.push_back(other_name);
    }
  const std::string hint = name_hints().of_plugin(kind, name), near = hint.empty() ? nearest(name, found) : "";
  return "no plugin '" + printable(name) + "' of kind " + kind + (hint.empty() ? "" : "; " + hint) +
         (near.empty() ? "" : "; did you mean '" + printable(near) + "'?") +
         "; found: " + joined(all_printable(found)) + "; searched: " + joined(all_printable(search_path_)) +
         "; [plugins] paths, --plugin-path or $PEFT_PLUGIN_PATH add a folder";
}

NameHints Plugins::name_hints() const {
  NameHints hints;
  for (const std::string& folder : search_path_)
    for (const fs::path& file : files_in(folder))
      if (file.filename().string().ends_with(hints_suffix)) hints.add_file(file.string());
  return hints;
}

std::string Plugins::example(const std::string& kind, const std::string& name) {
  fs::path file = load_file(kind, name, found(kind, name)).status.file;
  file.replace_extension(".example.toml");
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (!stream || !(text << stream.rdbuf()))
    throw PluginError(kind + "/" + name + " has no example: there is no file " + printable_path(file.string()));
  return text.str();
}

const Registry& Plugins::load(const std::string& kind, const std::string& name) {
  return load_file(kind, name, found(kind, name)).registry;
}

std::string Plugins::found(const std::string& kind, const std::string& name) const {
  const std::string file = find(kind, name);
  if (file.empty()) throw PluginError(missing(kind, name));
  return file;
}

const Plugins::Loaded& Plugins::load_file(const std::string& kind, const std::string& name, const std::string& file) {
  if (const auto known = loaded_.find(file); known != loaded_.end()) return *known->second;
  const auto refuse = [&](const std::string& why) { throw PluginError(printable_path(file) + ": " + why); };
  try {
    detail::check_trusted_folder(fs::path(file).parent_path().string());
  } catch (const detail::UntrustedPath& error) {
    throw PluginError(error.what());
  }
  const detail::PluginRecord record = detail::read_plugin_record(file);
  if (record.abi != PEFT_ABI)
    refuse("built for {" + printable(record.abi, 400) + "}, but this is {" PEFT_ABI "}; build it again");
  if (record.name != name) refuse("is named for '" + name + "', but its record names '" + printable(record.name) + "'");
  if (record.info_bytes != sizeof(PluginInfo))
    refuse("its peft_plugin_v1 has " + std::to_string(record.info_bytes) + " bytes, but this peft's has " +
           std::to_string(sizeof(PluginInfo)) + "; build it again");

  const PluginInfo& info = detail::load_library(file);
  if (info.abi == nullptr || record.abi != info.abi || info.name == nullptr || record.name != info.name ||
      info.version == nullptr || record.version != info.version || info.add == nullptr)
    refuse("its record and its symbol peft_plugin_v1 disagree");
  auto plugin = std::make_unique<Loaded>();
  plugin->status = {kind, name, printable(record.version), file, ""};
  try {
    const detail::ActivePlugin active(&info);
    info.add(plugin->registry);
  } catch (...) {
    detail::rethrow_missing_memory();
    refuse("could not register: " + detail::current_exception_text());
  }
  const StringList all = plugin->registry.names();
  if (all != StringList{kind + "/" + name})
    refuse("must register " + kind + "/" + name + " and nothing else, but registered: " + joined(all));
  return *loaded_.emplace(file, std::move(plugin)).first->second;
}

void Plugins::rethrow(const std::string& kind, const std::string& name) const {
  const std::string who = "plugin " + kind + "/" + name + ": ";
  try {
    throw;
  } catch (const PluginError& error) {
    throw PluginError(who + error.what());
  } catch (const Error&) {
    throw;
  } catch (...) {
    detail::rethrow_missing_memory();
    throw PluginError(who + "could not be created: " + detail::current_exception_text());
  }
}

std::vector<PluginStatus> Plugins::scan() {
  std::vector<PluginStatus> all;
  std::set<std::string> seen;
  for (const std::string& folder : search_path_) {
    for (const fs::path& file : plugin_files(folder)) {
      const auto [kind, name] = kind_and_name(file.filename().string());
      PluginStatus status{printable(kind), printable(name), "", file.string(), ""};
      if (const std::string problem = kind_problem(kind); !problem.empty()) {
        status.problem = problem;
      } else if (!is_plugin_name(name)) {
        status.problem = "a plugin's name has only a-z, 0-9 and _";
      } else if (!seen.insert(kind + "/" + name).second) {
        status.problem = "never used: a folder searched earlier has a " + kind + "/" + name;
      } else {
        try {
          status = load_file(kind, name, file.string()).status;
        } catch (const PluginError& error) {
          status.problem = error.what();
        }
      }
      all.push_back(std::move(status));
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const PluginStatus& a, const PluginStatus& b) {
    return std::tie(a.kind, a.name) < std::tie(b.kind, b.name);
  });
  return all;
}

std::vector<OptionInfo> Plugins::describe(const std::string& kind, const std::string& name) {
  if (const std::string problem = kind_problem(kind); !problem.empty()) throw PluginError(problem);
  const Registry& registry = load(kind, name);
  Options options;
  try {
    registry.describe(kind, name, options);
  } catch (...) {
    rethrow(kind, name);
  }
  return options.described();
}

std::vector<PluginStatus> Plugins::loaded() const {
  std::vector<PluginStatus> all;
  for (const auto& [file, loaded] : loaded_) all.push_back(loaded->status);
  return all;
}

}  // namespace peft

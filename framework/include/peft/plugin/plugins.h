#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/options/name_hints.h"
#include "peft/options/options.h"
#include "peft/plugin/registry.h"

namespace peft {

/// A plugin file, usable or not.
struct PluginStatus {
  std::string kind, name, version, file;
  std::string problem;  ///< "" if it can be used
};

/// The names of all kinds, in the list's order (plugin/kinds.h).
PEFT_API StringList plugin_kind_names();

/// The plugins on a search path. A file `peft_<kind>_<name>.so` is opened only when it is requested; its record (ABI,
/// name, version) is read before it is loaded; a loaded file stays until the process ends.
///
///     Plugins plugins(Plugins::search_path({}));
///     auto adapter = plugins.make<Adapter>("lora", options);
class PEFT_API Plugins {
 public:
  /// Absolute folders; the first one with the file wins. Throws PluginError for a relative path.
  explicit Plugins(StringList search_path);
  ~Plugins();
  /// `from_toml`, then $PEFT_PLUGIN_PATH (separated by colons), then `peft/plugins` next to libpeft; never the working
  /// directory.
  static StringList search_path(const StringList& from_toml);

  /// Loads the plugin and creates its object from its options. Throws PluginError if the plugin is missing, untrusted,
  /// built for another ABI, or fails; a peft::Error that it throws passes unchanged.
  template <class Interface>
  std::unique_ptr<Interface> make(const std::string& name, Options& options) {
    const Registry& registry = load(Kind<Interface>::name, name);
    try {
      return registry.make<Interface>(name, options);
    } catch (...) {
      rethrow(Kind<Interface>::name, name);
    }
  }
  /// Every plugin file on the search path, loaded to check that it works; sorted by kind and name.
  std::vector<PluginStatus> scan();
  /// The options of `kind`/`name`, with their defaults. Throws PluginError for an unknown kind.
  std::vector<OptionInfo> describe(const std::string& kind, const std::string& name);
  /// "" if there is a file for the plugin, whether it can be used or not; else the error: near names and hints, what
  /// was found, and where.
  std::string missing(const std::string& kind, const std::string& name) const;
  /// Of the files `*.hints.toml` in the search path's folders: those of plugins, `peft_<kind>_<name>.hints.toml`, and
  /// `names.hints.toml`.
  NameHints name_hints() const;
  /// Text of the experiment `peft_<kind>_<name>.example.toml` next to the plugin. Throws PluginError if it has none.
  std::string example(const std::string& kind, const std::string& name);
  /// The plugins loaded so far.
  std::vector<PluginStatus> loaded() const;

 private:
  struct Loaded;
  const Registry& load(const std::string& kind, const std::string& name);
  const Loaded& load_file(const std::string& kind, const std::string& name, const std::string& file);
  std::string find(const std::string& kind, const std::string& name) const;   ///< the file, or ""
  std::string found(const std::string& kind, const std::string& name) const;  ///< the file; throws if there is none
  /// Call while an exception of the plugin is being handled.
  [[noreturn]] void rethrow(const std::string& kind, const std::string& name) const;
  StringList search_path_;
  std::map<std::string, std::unique_ptr<Loaded>> loaded_;  ///< by file
};

}  // namespace peft

#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/options/options.h"
#include "peft/plugin/registry.h"

namespace peft {

/// A plugin file, working or not.
struct PluginStatus {
  std::string kind, name, version, file;
  std::string problem;  ///< "" if it can be used
};

/// The plugins of a search path. A file `peft_<kind>_<name>.so` is looked at only when it is asked for; what it was
/// built for is read before it is loaded; once loaded it stays to the end of the process.
///
///     Plugins plugins(Plugins::search_path({}));
///     auto adapter = plugins.make<Adapter>("lora", options);
class PEFT_API Plugins {
 public:
  /// Folders, absolute; the first that holds the file wins. Throws PluginError for a relative one.
  explicit Plugins(StringList search_path);
  ~Plugins();
  /// `from_toml`, then $PEFT_PLUGIN_PATH (separated by colons), then `peft/plugins` beside libpeft; never the current
  /// folder.
  static StringList search_path(const StringList& from_toml);

  /// Loads the plugin and lets it build from its options. Throws PluginError if it is not there, not to be trusted,
  /// built for something else, or fails; a peft::Error of the plugin comes through as it is.
  template <class Interface>
  std::unique_ptr<Interface> make(const std::string& name, Options& options) {
    const Registry& registry = load(Kind<Interface>::name, name);
    try {
      return (registry.*Kind<Interface>::table).make(name, options);
    } catch (...) {
      rethrow(Kind<Interface>::name, name);
    }
  }
  /// Every plugin file of the search path, loaded to see whether it works, sorted by kind and name.
  std::vector<PluginStatus> scan();
  /// The options of `kind`/`name`, with their defaults.
  std::vector<OptionInfo> describe(const std::string& kind, const std::string& name);
  /// Those in use so far.
  std::vector<PluginStatus> loaded() const;

 private:
  struct Loaded;
  const Registry& load(const std::string& kind, const std::string& name);
  const Loaded& load_file(const std::string& kind, const std::string& name, const std::string& file);
  std::string find(const std::string& kind, const std::string& name) const;
  /// Called while an exception of the plugin is being handled.
  [[noreturn]] void rethrow(const std::string& kind, const std::string& name) const;
  StringList search_path_;
  std::map<std::string, std::unique_ptr<Loaded>> loaded_;  ///< by file
};

}  // namespace peft

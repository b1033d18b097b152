#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/abi.h"
#include "peft/adapter.h"
#include "peft/clipping.h"
#include "peft/export.h"
#include "peft/optimizer.h"
#include "peft/options.h"
#include "peft/precision.h"
#include "peft/registry.h"
#include "peft/scheduler.h"

namespace peft {

/// What a plugin exports as the C symbol `peft_plugin_v1`; constant data.
struct PluginInfo {
  const char* abi;  ///< PEFT_ABI as compiled into the plugin
  const char* name;
  const char* version;
  void (*add)(Registry&);  ///< registers the plugin's factory; may throw
};

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

extern "C" PEFT_API const peft::PluginInfo peft_plugin_v1;

// `retain` keeps the record where the linker drops unused sections.
#if __has_attribute(retain)
#define PEFT_PLUGIN_SECTION __attribute__((section(".peft_plugin"), used, retain))
#else
#define PEFT_PLUGIN_SECTION __attribute__((section(".peft_plugin"), used))
#endif

/// The whole declaration of a plugin, the last line of its source:  PEFT_PLUGIN("lora", "1.0.0", add)
/// Its name is the file's: peft_<kind>_<name>.so. The record is read from the file before anything in it can run.
#define PEFT_PLUGIN(name_, version_, add_)                                                                          \
  PEFT_PLUGIN_SECTION static const char peft_plugin_record[] = "peft plugin 1\0" PEFT_ABI "\0" name_ "\0" version_; \
  const peft::PluginInfo peft_plugin_v1 = {PEFT_ABI, name_, version_, add_};

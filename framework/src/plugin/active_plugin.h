#pragma once
// Which plugin the process is in, for peft/plugin/active_plugin.h. An exception needs none of this: it is reported
// where it leaves the plugin.

#include <string>

namespace peft::detail {

struct PluginFile;

/// What a thread does.
struct ActiveState {
  const void* address = nullptr;        ///< in the file of the plugin that was called; null: none
  const void* core_callback = nullptr;  ///< the innermost ActiveCore, which is on the thread's stack
};

/// While it lives, the thread is in a call of the plugin whose file contains `address`; of no plugin if none does.
class ActivePlugin {
 public:
  explicit ActivePlugin(const void* address) noexcept;
  ~ActivePlugin();
  ActivePlugin(const ActivePlugin&) = delete;
  ActivePlugin& operator=(const ActivePlugin&) = delete;

 protected:
  explicit ActivePlugin(ActiveState state) noexcept;

 private:
  const ActiveState before_;
};

/// While it lives, the thread is in the core, which a plugin has called back.
class ActiveCore : public ActivePlugin {
 public:
  ActiveCore() noexcept : ActivePlugin(ActiveState{nullptr, this}) {}
};

/// While it lives, the code that runs is that of a file that is being loaded: its static constructors.
class LoadingPlugin {
 public:
  explicit LoadingPlugin(const std::string& file);
  /// The file is loaded for the rest of the process; `address` is in it.
  void loaded(const void* address);

 private:
  PluginFile& file_;
  ActivePlugin active_;
};

}  // namespace peft::detail

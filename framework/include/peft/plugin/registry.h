#pragma once

#include <map>
#include <memory>
#include <string>

#include "peft/base/error.h"
#include "peft/base/export.h"
#include "peft/options/options.h"

namespace peft {

class Adapter;
class Optimizer;
class Scheduler;
class GradientClipping;
class Precision;

/// Name → factory for one kind of plugin. A factory is a plain function: it owns nothing.
template <class Interface>
class FactoryRegistry {
 public:
  using Factory = std::unique_ptr<Interface> (*)(Options&);

  /// A name that is taken is an error: two plugins never shadow each other.
  void add(const std::string& name, Factory factory) {
    if (factory == nullptr) throw PluginError("'" + name + "' registers no factory");
    if (!factories_.emplace(name, factory).second) throw PluginError("'" + name + "' is registered twice");
  }
  StringList names() const {
    StringList all;
    for (const auto& [name, factory] : factories_) all.push_back(name);
    return all;
  }
  /// Reads the options and builds. Throws PluginError for an unknown name or a factory that returns nothing.
  std::unique_ptr<Interface> make(const std::string& name, Options& options) const {
    const auto it = factories_.find(name);
    if (it == factories_.end()) throw PluginError("nothing registered as '" + name + "'");
    std::unique_ptr<Interface> made = it->second(options);
    if (!made) throw PluginError("the factory of '" + name + "' returned nothing");
    return made;
  }

 private:
  std::map<std::string, Factory> factories_;
};

/// What a plugin adds itself to. An object, not a singleton: a program may hold several.
struct Registry {
  FactoryRegistry<Adapter> adapters;
  FactoryRegistry<Optimizer> optimizers;
  FactoryRegistry<Scheduler> schedulers;
  FactoryRegistry<GradientClipping> clippings;
  FactoryRegistry<Precision> precisions;
};

/// A kind of plugin: its name in TOML and file names, and its table.
template <class Interface>
struct Kind;
template <>
struct Kind<Adapter> {
  static constexpr const char* name = "adapter";
  static constexpr auto table = &Registry::adapters;
};
template <>
struct Kind<Optimizer> {
  static constexpr const char* name = "optimizer";
  static constexpr auto table = &Registry::optimizers;
};
template <>
struct Kind<Scheduler> {
  static constexpr const char* name = "scheduler";
  static constexpr auto table = &Registry::schedulers;
};
template <>
struct Kind<GradientClipping> {
  static constexpr const char* name = "clipping";
  static constexpr auto table = &Registry::clippings;
};
template <>
struct Kind<Precision> {
  static constexpr const char* name = "precision";
  static constexpr auto table = &Registry::precisions;
};

}  // namespace peft

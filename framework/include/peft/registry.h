#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "peft/error.h"
#include "peft/export.h"
#include "peft/options.h"

namespace peft {

class Adapter;
class Optimizer;
class Scheduler;
class GradientClipper;
class Precision;

/// Name → factory for one kind of plugin. A factory is a plain function: it owns nothing.
template <class Interface>
class Table {
 public:
  using Factory = std::unique_ptr<Interface> (*)(Options&);

  /// A name that is taken is an error: two plugins never shadow each other.
  void add(const std::string& name, Factory make) {
    if (make == nullptr) throw PluginError("'" + name + "' registers no factory");
    if (!factories_.emplace(name, make).second)
      throw PluginError("'" + name + "' is registered twice");
  }
  bool has(const std::string& name) const { return factories_.count(name) != 0; }
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
  Table<Adapter> adapters;
  Table<Optimizer> optimizers;
  Table<Scheduler> schedulers;
  Table<GradientClipper> clippers;
  Table<Precision> precisions;
};

}  // namespace peft

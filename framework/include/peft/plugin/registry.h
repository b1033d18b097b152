#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/base/error.h"
#include "peft/base/export.h"
#include "peft/options/options.h"
#include "peft/plugin/kinds.h"

namespace peft {

/// The factories that a plugin registers. An object, not a singleton: a program may have several.
class PEFT_API Registry {
 public:
  /// Reads the plugin's options and creates its object. A plain function: it owns nothing.
  template <class Interface>
  using Factory = std::unique_ptr<Interface> (*)(Options&);

  /// registry.add<peft::Optimizer>("adamw", make). Throws PluginError if the name is taken: two plugins never shadow
  /// each other.
  template <class Interface>
  void add(const std::string& name, Factory<Interface> factory) {
    const auto describe = [](AnyFactory any, Options& options) { call<Interface>(any, options); };
    insert({Kind<Interface>::name, name, reinterpret_cast<AnyFactory>(factory), describe});
  }
  /// Creates an object. Throws PluginError for an unknown name, and if the factory returns nullptr.
  template <class Interface>
  std::unique_ptr<Interface> make(const std::string& name, Options& options) const {
    std::unique_ptr<Interface> made = call<Interface>(find(Kind<Interface>::name, name).factory, options);
    if (!made) throw PluginError("the factory of '" + name + "' returned nothing");
    return made;
  }
  /// Lets a plugin read `options`, and discards what it creates.
  void describe(const std::string& kind, const std::string& name, Options& options) const;
  /// "kind/name" of everything registered, in that order.
  StringList names() const;

 private:
  using AnyFactory = void (*)();  ///< a Factory of the entry's kind
  struct Entry {
    std::string kind, name;
    AnyFactory factory;
    void (*describe)(AnyFactory, Options&);
  };
  template <class Interface>
  static std::unique_ptr<Interface> call(AnyFactory factory, Options& options) {
    return reinterpret_cast<Factory<Interface>>(factory)(options);
  }
  void insert(Entry entry);
  const Entry& find(const std::string& kind, const std::string& name) const;
  std::vector<Entry> entries_;
};

}  // namespace peft

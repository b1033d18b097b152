#include "peft/plugin/registry.h"

namespace peft {

void Registry::insert(Entry entry) {
  if (entry.factory == nullptr) throw PluginError("'" + entry.name + "' registers no factory");
  for (const Entry& other : entries_)
    if (other.kind == entry.kind && other.name == entry.name)
      throw PluginError("'" + entry.name + "' is registered twice");
  entries_.push_back(std::move(entry));
}

const Registry::Entry& Registry::find(const std::string& kind, const std::string& name) const {
  for (const Entry& entry : entries_)
    if (entry.kind == kind && entry.name == name) return entry;
  throw PluginError("nothing registered as '" + name + "'");
}

void Registry::describe(const std::string& kind, const std::string& name, Options& options) const {
  const Entry& entry = find(kind, name);
  entry.describe(entry.factory, options);
}

StringList Registry::names() const {
  StringList all;
  for (const Entry& entry : entries_) all.push_back(entry.kind + "/" + printable(entry.name));
  return all;
}

}  // namespace peft

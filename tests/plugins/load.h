#pragma once

#include <memory>
#include <string>

#include "peft/options/document.h"
#include "peft/plugin.h"
#include "peft/plugin/plugins.h"

namespace peft::test {

/// A plugin of the tree with the options of its table in `document`, through the real loader. $PEFT_PLUGIN_PATH, which
/// ctest sets, says where it is.
template <class Interface>
std::unique_ptr<Interface> load(const std::string& name, Document& document) {
  Plugins plugins(Plugins::search_path({}));
  Options options = document.table(Kind<Interface>::name);
  auto made = plugins.make<Interface>(name, options);
  document.finish();
  return made;
}

/// The same with the options written in `toml`, the inside of the table.
template <class Interface>
std::unique_ptr<Interface> load(const std::string& name, const std::string& toml = "") {
  const std::string table = Kind<Interface>::name;
  Document document = Document::from_text("[" + table + "]\n" + toml + "\n", table + ".toml");
  return load<Interface>(name, document);
}

}  // namespace peft::test

#pragma once

#include <memory>
#include <string>

#include "peft/plugin.h"

namespace peft::test {

/// A plugin of the tree with the options written in `toml` (the inside of its table), through the real loader.
/// $PEFT_PLUGIN_PATH, which ctest sets, says where it is.
template <class Interface>
std::unique_ptr<Interface> load(const std::string& name, const std::string& toml = "") {
  const std::string table = Kind<Interface>::name;
  Document document = Document::from_text("[" + table + "]\n" + toml + "\n", table + ".toml");
  Plugins plugins(Plugins::search_path({}));
  Options options = document.table(table);
  auto made = plugins.make<Interface>(name, options);
  document.finish();
  return made;
}

}  // namespace peft::test

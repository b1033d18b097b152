#pragma once

#include <map>
#include <string>

#include "peft/base/export.h"
#include "peft/options/options.h"

namespace peft {

/// What the names of other tools are called here. They are only for error messages about unknown names: no name has two
/// spellings. A hints file is TOML:
///
///     [keys]                                    # an option's name elsewhere = the same here
///     learning_rate = ["optimizer.lr"]          # table.key, or table.key = value
///     group_by_length = "not needed"            # has no counterpart, and why
///     [adapter]                                 # of any plugin kind: a name elsewhere = what to write
///     dora = "DoRA is lora with use_dora = true"
class PEFT_API NameHints {
 public:
  /// Adds the entries of a file; names that are already known keep their hint. A file that cannot be read, or is not of
  /// this form, adds nothing: hints must never prevent the message that they explain.
  void add_file(const std::string& path);
  /// "here it is 'lr' in [optimizer]", for the unknown key `key` of `table` ("" outside any table); "" if nothing is
  /// known. `is_option(table, key)` says which options exist; others are not named.
  template <class IsOption>
  std::string of_key(const std::string& key, const std::string& table, const IsOption& is_option) const {
    StringList existing;
    const auto it = keys_.find(key);
    if (it == keys_.end()) return "";
    for (const std::string& option : it->second.options)
      if (is_option(table_of(option), key_of(option))) existing.push_back(option);
    return text(it->second, existing, table);
  }
  /// "DoRA is lora with use_dora = true", for a plugin that does not exist; "" if nothing is known.
  std::string of_plugin(const std::string& kind, const std::string& name) const;

 private:
  struct KeyHint {
    StringList options;  ///< table.key or table.key = value; empty if there is no counterpart
    std::string why;     ///< then: why there is none
  };
  static std::string table_of(const std::string& option);
  static std::string key_of(const std::string& option);
  static std::string text(const KeyHint& hint, const StringList& options, const std::string& table);
  std::map<std::string, KeyHint> keys_;
  std::map<std::string, std::map<std::string, std::string>> plugins_;  ///< by kind and name
};

}  // namespace peft

#include "peft/options/name_hints.h"

#include "options/toml_file.h"
#include "options/value.h"
#include "peft/base/error.h"

namespace peft {

namespace {

using detail::Entries;
using detail::Entry;

StringList strings_of(const detail::Value& value) {
  StringList strings;
  if (const auto* list = std::get_if<detail::ValueList>(&value.data))
    for (const detail::Value& element : *list)
      if (const auto* text = std::get_if<std::string>(&element.data)) strings.push_back(*text);
  return strings;
}

/// "optimizer.lr" → "'lr' in [optimizer]"; without the table if that is the one of the unknown key.
std::string phrase(const std::string& option, const std::string& table_here) {
  const std::size_t dot = option.find('.');
  const std::string table = option.substr(0, dot), key = option.substr(dot + 1);
  const bool assigns = key.find('=') != std::string::npos;
  return (assigns ? key : "'" + key + "'") + (table == table_here ? "" : " in [" + table + "]");
}

}  // namespace

void NameHints::add_file(const std::string& path) {
  Entries tables;
  try {
    tables = detail::read_toml_file(path).second;
  } catch (const Error&) {
    return;
  }
  for (const Entry& table : tables) {
    const auto* entries = std::get_if<Entries>(&table.value.data);
    if (entries == nullptr) continue;
    for (const Entry& entry : *entries) {
      const auto* text = std::get_if<std::string>(&entry.value.data);
      if (table.key == "keys")
        keys_.emplace(entry.key, KeyHint{strings_of(entry.value), text != nullptr ? *text : ""});
      else if (text != nullptr)
        plugins_[table.key].emplace(entry.key, *text);
    }
  }
}

std::string NameHints::of_plugin(const std::string& kind, const std::string& name) const {
  const auto names = plugins_.find(kind);
  if (names == plugins_.end()) return "";
  const auto hint = names->second.find(name);
  return hint == names->second.end() ? "" : printable(hint->second, 400);
}

std::string NameHints::table_of(const std::string& option) { return option.substr(0, option.find('.')); }

std::string NameHints::key_of(const std::string& option) {
  const std::string key = option.substr(option.find('.') + 1);
  return key.substr(0, key.find(" ="));
}

std::string NameHints::text(const KeyHint& hint, const StringList& options, const std::string& table) {
  if (hint.options.empty()) return hint.why.empty() ? "" : "it has no counterpart here: " + printable(hint.why, 400);
  std::string out;
  for (const std::string& option : options)
    out += (out.empty() ? "here it is " : " or ") + printable(phrase(option, table), 400);
  return out;
}

}  // namespace peft

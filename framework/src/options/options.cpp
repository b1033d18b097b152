#include "peft/options/options.h"

#include <cctype>
#include <cstdlib>

#include "base/utf8.h"
#include "options/codec.h"
#include "options/table.h"
#include "peft/base/error.h"

namespace peft {
namespace {

using detail::Entry;
using detail::Value;

/// "an integer" → "integer", as OptionInfo::type.
std::string without_articles(std::string phrase) {
  for (const std::string article : {"an ", "a "}) {
    if (phrase.starts_with(article)) phrase.erase(0, article.size());
    for (std::size_t at; (at = phrase.find("or " + article)) != std::string::npos;)
      phrase.erase(at + 3, article.size());
  }
  return phrase;
}

/// "$NAME" or "${NAME}", which a shell would have replaced.
bool has_variable(const std::string& path) {
  const std::size_t dollar = path.find('$');
  if (dollar == std::string::npos || dollar + 1 == path.size()) return false;
  const auto next = static_cast<unsigned char>(path[dollar + 1]);
  return std::isalpha(next) != 0 || next == '_' || next == '{';
}

/// 'path' for 'paths' is a slip, whatever 'path' is elsewhere.
bool is_plural(const std::string& key, const std::string& written) { return key == written + "s"; }

bool exists(const std::string& path) {
  std::error_code ignored;
  return std::filesystem::exists(path, ignored);
}

}  // namespace

OptionRule& OptionRule::require(bool ok, std::string_view message) {
  if (!ok && readable_) options_.error(key_, message);
  return *this;
}

OptionRule& OptionRule::in_size_limit(int64_t value, int64_t max) {
  require(value > 0, "must be positive");
  return require(value <= max, "must be at most " + std::to_string(max));
}

OptionRule& OptionRule::in_size_limit(const IntMap& values) {
  for (const auto& [key, value] : values)
    if (value < 1 || value > kMaxSize)
      return require(false, value < 1 ? "must contain positive ranks only"
                                      : "must contain ranks of at most " + std::to_string(kMaxSize));
  return *this;
}

const Entry* Options::Table::find(std::string_view key) const {
  for (const Entry& entry : entries)
    if (entry.key == key) return &entry;
  return nullptr;
}

const Options::Table::ReadOption* Options::Table::find_read(std::string_view key) const {
  for (const ReadOption& option : read_options)
    if (option.info.key == key) return &option;
  return nullptr;
}

void Options::Table::error(std::string_view key, std::string_view message) {
  const Entry* entry = find(key);
  if (saved != nullptr && entry != nullptr && saved->passes(name, key, entry->value)) return;
  errors->add(entry != nullptr ? entry->value.location : location,
              label + "'" + printable(std::string(key)) + "' " + std::string(message));
}

std::string Options::Table::absolute(std::string_view key, const std::string& path) {
  const Entry* entry = find(key);
  const auto& source = entry != nullptr ? entry->value.location.source : location.source;
  if (path.find('\0') != std::string::npos) {
    error(key, "contains a NUL character, which no path can: " + printable_path(path));
    throw ConfigError(errors->text());  // the path may be opened before finish()
  }
  if (path.empty() || !source) return path;
  const char* home = std::getenv("HOME");
  const bool starts_at_home = path.starts_with("~/") && home != nullptr && *home == '/';
  std::string absolute_path = (starts_at_home ? std::filesystem::path(home) / path.substr(2) : source->folder / path)
                                  .lexically_normal()
                                  .string();
  if (entry != nullptr && has_variable(path) && !exists(absolute_path))
    error(key, "contains '$', but variables are not expanded; write the path itself, or ~/ for your home folder");
  if (!detail::is_utf8(absolute_path))
    error(key,
          "is in a folder whose name is not UTF-8, so TOML cannot contain its path: " + printable_path(absolute_path));
  return absolute_path;
}

void Options::Table::set_resolved(std::string_view key, const std::string& type, const std::string& value) {
  for (ReadOption& option : read_options) {
    if (option.info.key != key) continue;
    option.info.type = type;
    option.value = value;
  }
}

std::shared_ptr<Options::Table> Options::Table::child(std::string_view key) const {
  for (const auto& table : children)
    if (table->key() == key) return table;
  return nullptr;
}

bool Options::Table::may_have(const std::string& key) const {
  return has_unknown_plugin || find_read(key) != nullptr || child(key) != nullptr;
}

void Options::Table::report_unknown_keys(
    const std::function<std::string(const std::string&, const std::string&)>& hint) {
  if (has_unknown_plugin) return;
  StringList known;
  for (const ReadOption& option : read_options) known.push_back(option.info.key);
  for (const auto& table : children) {
    known.push_back(table->key());
    table->report_unknown_keys(hint);
  }
  std::string list;
  for (const std::string& key : known) list += (list.empty() ? "" : ", ") + key;
  for (const Entry& entry : entries) {
    if (entry.value.ignorable || may_have(entry.key)) continue;
    if (saved != nullptr) {
      if (!saved->passes(name, entry.key, entry.value)) saved->add_unknown(name, entry.key);
      continue;
    }
    if (find("init_from") != nullptr) {
      errors->add(entry.location, label + "'" + printable(entry.key) +
                                      "' next to init_from: the method's options are those of that adapter; remove it");
      continue;
    }
    const std::string near = errors->full() ? "" : nearest(entry.key, known);
    std::string advice = errors->full() || is_plural(near, entry.key) ? "" : hint(entry.key, name);
    if (advice.empty()) advice = near.empty() ? "known: " + list : "did you mean '" + near + "'?";
    errors->add(entry.location, label + "unknown key '" + printable(entry.key) + "'; " + advice);
  }
}

std::string Options::Table::resolved(const std::string& prefix) const {
  std::string out;
  for (const ReadOption& option : read_options)
    if (!option.value.empty()) out += prefix + detail::write_key(option.info.key) + " = " + option.value + "\n";
  for (const auto& table : children) out += table->resolved(prefix + detail::write_key(table->key()) + ".");
  return out;
}

Options::Options() : table_(std::make_shared<Table>()) {}
Options::Options(std::shared_ptr<Table> table) : table_(std::move(table)) {}
Options::~Options() = default;
Options::Options(Options&&) noexcept = default;
Options& Options::operator=(Options&&) noexcept = default;

template <class T>
OptionRule Options::read(std::string_view key, T& value, std::string_view help) {
  OptionInfo info{std::string(key), without_articles(detail::type_name(value)), detail::write(value),
                  std::string(help)};
  bool readable = true;
  if (const Entry* entry = table_->find(key)) {
    const Value* wrong = nullptr;
    readable = detail::read(entry->value, value, wrong);
    if (!readable && (table_->saved == nullptr || !table_->saved->passes(table_->name, key, entry->value))) {
      const bool inside = wrong != &entry->value;
      const std::string given = detail::describe(*wrong), type = detail::type_name(value);
      const bool must_be_finite = type == "a number" && (given == "nan" || given == "inf");
      table_->errors->add(wrong->location, table_->label + "'" + info.key + "' must be " +
                                               (must_be_finite ? "a finite number" : type) +
                                               (inside ? "; this element is " : ", not ") + given);
    }
  }
  if (table_->find_read(key) == nullptr) table_->read_options.push_back({std::move(info), detail::write(value)});
  return {*this, std::string(key), readable};
}

OptionRule Options::get(std::string_view key, bool& value, std::string_view help) { return read(key, value, help); }
OptionRule Options::get(std::string_view key, int64_t& value, std::string_view help) { return read(key, value, help); }
OptionRule Options::get(std::string_view key, double& value, std::string_view help) { return read(key, value, help); }
OptionRule Options::get(std::string_view key, std::string& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, StringList& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, IntList& value, std::string_view help) { return read(key, value, help); }
OptionRule Options::get(std::string_view key, IntPairList& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, StringOrList& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, BoolOrString& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, IntMap& value, std::string_view help) { return read(key, value, help); }
OptionRule Options::get(std::string_view key, NumberMap& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, BoolListMap& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<int64_t>& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<double>& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<std::string>& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<StringList>& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<StringOrList>& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<IntList>& value, std::string_view help) {
  return read(key, value, help);
}
OptionRule Options::get(std::string_view key, std::optional<IntListOrMap>& value, std::string_view help) {
  return read(key, value, help);
}

OptionRule Options::get_path(std::string_view key, std::string& value, std::string_view help) {
  OptionRule rule = read(key, value, help);
  value = table_->absolute(key, value);
  table_->set_resolved(key, "path", detail::write(value));
  return rule;
}

OptionRule Options::get_paths(std::string_view key, StringList& value, std::string_view help) {
  StringOrList given = value;
  OptionRule rule = read(key, given, help);
  value = given.index() == 0 ? StringList{std::get<std::string>(given)} : std::get<StringList>(given);
  std::erase(value, "");  // "" means "not given"
  for (std::string& path : value) {
    path = table_->absolute(key, path);
    if (path.find_first_of("*?") != std::string::npos && !exists(path))
      table_->error(key, "contains a wildcard, but wildcards are not expanded; name each file, in a list");
  }
  table_->set_resolved(key, "path or list of paths", detail::write(value));
  return rule;
}

Options Options::table(std::string_view key) {
  if (const auto existing = table_->child(key)) return Options(existing);
  auto child = std::make_shared<Table>();
  child->name = table_->name + "." + std::string(key);
  child->label = table_->label.empty() ? std::string(key) + ": " : "[" + child->name + "] ";
  child->errors = table_->errors;
  child->saved = table_->saved;
  child->location = table_->location;
  if (const Entry* entry = table_->find(key)) {
    child->location = entry->value.location;
    if (const auto* entries = std::get_if<detail::Entries>(&entry->value.data))
      child->entries = *entries;
    else
      table_->error(key, "must be a table, not " + detail::describe(entry->value));
  }
  table_->children.push_back(child);
  return Options(child);
}

bool Options::has(std::string_view key) const { return table_->find(key) != nullptr; }
void Options::error(std::string_view key, std::string_view message) { table_->error(key, message); }

std::vector<OptionInfo> Options::described() const {
  std::vector<OptionInfo> all;
  for (const Table::ReadOption& option : table_->read_options) all.push_back(option.info);
  for (const auto& child : table_->children)
    for (OptionInfo info : Options(child).described()) {
      info.key.insert(0, child->key() + ".");
      all.push_back(std::move(info));
    }
  return all;
}

}  // namespace peft

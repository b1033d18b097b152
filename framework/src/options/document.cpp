#include <algorithm>
#include <filesystem>
#include <optional>
#include <tuple>

#include "base/first_lines.h"
#include "options/codec.h"
#include "options/document_state.h"
#include "options/table.h"
#include "options/toml_file.h"
#include "peft/base/error.h"

namespace peft {

using detail::Entries;
using detail::Entry;
using detail::Source;
using detail::SourceLocation;
using detail::Value;

namespace detail {

namespace {
constexpr std::size_t kMaxLines = 1000;
}

void Errors::add(const SourceLocation& location, const std::string& text) {
  if (full()) {
    ++omitted_;
    return;
  }
  std::string where;
  if (location.source) where = printable_path(location.source->name);
  if (location.line != 0) where += ":" + std::to_string(location.line) + ":" + std::to_string(location.column);
  lines_.push_back({location.source ? location.source->order : 0, location.line, location.column, where + ": " + text});
}

std::size_t Errors::count() const { return lines_.size() + omitted_; }
bool Errors::full() const { return lines_.size() == kMaxLines; }

std::string Errors::text() const {
  std::vector<Line> sorted = lines_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Line& a, const Line& b) {
    return std::tie(a.order, a.line, a.column) < std::tie(b.order, b.line, b.column);
  });
  FirstLines message;
  for (const Line& line : sorted) message.add(line.text);
  message.count(omitted_);
  return message.text();
}

}  // namespace detail

Document::Document(std::unique_ptr<State> state) : state_(std::move(state)) {}
Document::~Document() = default;
Document::Document(Document&&) noexcept = default;

Document Document::from_file(const std::string& path) {
  auto state = std::make_unique<State>();
  std::tie(state->source, state->entries) = detail::read_toml_file(path);
  return Document(std::move(state));
}

Document Document::from_text(const std::string& toml, const std::string& name) {
  auto state = std::make_unique<State>();
  state->source = std::make_shared<Source>(Source{name, std::filesystem::current_path()});
  state->entries = detail::parse_toml(toml, state->source);
  return Document(std::move(state));
}

namespace {

/// The table that `--set` refers to: `value` itself, or the element of a list of tables whose index precedes the first
/// dot in `key`; removes the index from `key`. Null if there is no such table.
Entries* assigned_table(Value& value, std::string& key) {
  auto* list = std::get_if<detail::ValueList>(&value.data);
  if (list == nullptr) return std::get_if<Entries>(&value.data);
  const std::size_t dot = key.find('.');
  const std::string number = key.substr(0, dot);
  if (dot == std::string::npos || number.empty() || number.size() > 4 ||
      number.find_first_not_of("0123456789") != std::string::npos)
    return nullptr;
  const std::size_t index = std::stoul(number);
  key.erase(0, dot + 1);
  return index < list->size() ? std::get_if<Entries>(&(*list)[index].data) : nullptr;
}

bool is_plain_key(const std::string& key) { return !key.empty() && detail::write_key(key) == key; }

}  // namespace

void Document::overlay(const std::string& path) {
  for (Entry& table : detail::read_toml_file(path, ++state_->sources).second) {
    std::erase_if(state_->entries, [&](const Entry& old) { return old.key == table.key; });
    state_->entries.push_back(std::move(table));
  }
}

void Document::set_hints(std::function<NameHints()> load) { state_->load_hints = std::move(load); }

void Document::set(const std::string& assignment) {
  const std::string usage = "--set '" + printable(assignment) + "': write table.key=value, e.g. --set adapter.r=16";
  const std::size_t equals = assignment.find('=');
  const std::size_t dot = assignment.find('.');
  if (equals == std::string::npos || dot > equals) throw ConfigError(usage);
  const std::string table = assignment.substr(0, dot);
  std::string key = assignment.substr(dot + 1, equals - dot - 1);
  if (!is_plain_key(table)) throw ConfigError(usage);
  const auto source =
      std::make_shared<Source>(Source{"--set " + assignment, std::filesystem::current_path(), ++state_->sources, true});
  Value value = detail::parse_assigned(assignment.substr(equals + 1), source);
  Entry* entry = state_->find(table);
  if (entry == nullptr) entry = &state_->entries.emplace_back(Entry{table, {source}, {Entries{}, {state_->source}}});
  const bool list = std::holds_alternative<detail::ValueList>(entry->value.data);
  Entries* entries = assigned_table(entry->value, key);
  if (list && entries == nullptr)
    throw ConfigError("--set '" + printable(assignment) + "': [" + table +
                      "] is a list of tables; add the index of one of them, starting at 0: --set " + table +
                      ".0.key=value");
  if (!is_plain_key(key)) throw ConfigError(usage);
  if (entries == nullptr) return;  // table() reports what is wrong with it
  std::erase_if(*entries, [&](const Entry& old) { return old.key == key; });
  entries->push_back({key, {source}, std::move(value)});
}

Entry* Document::State::find(std::string_view table) {
  for (Entry& entry : entries)
    if (entry.key == table) return &entry;
  return nullptr;
}

bool Document::has_table(std::string_view name) const { return state_->find(name) != nullptr; }

Options Document::add_table(std::string_view name, const Value* value, bool listed) {
  auto table = std::make_shared<Options::Table>();
  table->name = name;
  table->label = state_->kind == ErrorKind::config ? "[" + table->name + "] " : "";
  table->errors = state_->errors;
  table->saved = state_->saved;
  table->listed = listed;
  table->location = {state_->source};
  if (value != nullptr) {
    table->location = value->location;
    if (const auto* entries = std::get_if<Entries>(&value->data)) table->entries = *entries;
  }
  state_->tables.push_back(table);
  return Options(table);
}

Options Document::table(std::string_view name) {
  for (const auto& table : state_->tables)
    if (table->name == name) return Options(table);
  const Entry* entry = state_->find(name);
  if (entry != nullptr && std::holds_alternative<detail::ValueList>(entry->value.data))
    state_->errors->add(
        entry->location,
        "[" + std::string(name) + "] is a list of tables; there can be only one, written [" + std::string(name) + "]");
  else if (entry != nullptr && !std::holds_alternative<Entries>(entry->value.data))
    state_->errors->add(entry->location, "'" + std::string(name) + "' must be a table, written [" + std::string(name) +
                                             "], not " + detail::describe(entry->value));
  return add_table(name, entry != nullptr ? &entry->value : nullptr, false);
}

std::vector<Options> Document::tables(std::string_view name) {
  const Entry* entry = state_->find(name);
  const auto* list = entry != nullptr ? std::get_if<detail::ValueList>(&entry->value.data) : nullptr;
  std::vector<Options> out;
  if (list == nullptr || list->empty()) {
    out.push_back(table(name));
    return out;
  }
  for (const Value& element : *list) {
    if (!std::holds_alternative<Entries>(element.data))
      state_->errors->add(element.location, "each '" + std::string(name) + "' must be a table, written [[" +
                                                std::string(name) + "]], not " + detail::describe(element));
    out.push_back(add_table(name, &element, true));
  }
  return out;
}

void Document::reject_plugin(Options& table, const std::string& message) {
  Options::Table& rejected = *table.table_;
  const Entry* name = rejected.find("name");
  state_->errors->add(name != nullptr ? name->value.location : rejected.location, rejected.label + message);
  rejected.has_unknown_plugin = true;
  ++state_->rejected_plugins;
}

void Document::finish() {
  std::optional<NameHints> names;
  const auto is_option = [&](const std::string& name, const std::string& key) {
    return std::any_of(state_->tables.begin(), state_->tables.end(), [&](const auto& table) {
      return table->name == name && table->may_have(key.substr(0, key.find('.')));
    });
  };
  const auto hint = [&](const std::string& key, const std::string& table) -> std::string {
    if (!state_->load_hints) return "";
    if (!names) names = state_->load_hints();
    return names->of_key(key, table, is_option);
  };
  StringList known;
  std::string list;
  for (const auto& table : state_->tables) {
    table->report_unknown_keys(hint);
    if (std::find(known.begin(), known.end(), table->name) != known.end()) continue;
    known.push_back(table->name);
    list += (list.empty() ? "[" : ", [") + table->name + "]";
  }
  for (const Entry& entry : state_->entries) {
    if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
    const bool table = std::holds_alternative<Entries>(entry.value.data);
    const std::string near = nearest(entry.key, known), name = printable(entry.key);
    const std::string elsewhere = state_->errors->full() ? "" : hint(entry.key, "");
    state_->errors->add(entry.location,
                        (table ? "unknown table [" + name + "]; " : "key '" + name + "' outside any table; ") +
                            (!elsewhere.empty()       ? elsewhere
                             : near.empty() || !table ? "known tables: " + list
                                                      : "did you mean [" + near + "]?"));
  }
  if (state_->saved != nullptr) state_->report_saved();
  if (state_->errors->empty()) return;
  if (state_->kind == ErrorKind::input) throw InputError(state_->errors->text());
  if (state_->errors->count() == state_->rejected_plugins) throw PluginError(state_->errors->text());
  throw ConfigError(state_->errors->text());
}

std::string Document::values(std::string_view name) const {
  std::string out;
  for (const auto& table : state_->tables) {
    if (table->name != name) continue;
    for (const auto& option : table->read_options)
      if (option.info.key != "name" && !option.value.empty())
        out += (out.empty() ? "" : ", ") + option.info.key + " = " + option.value;
  }
  return out;
}

std::string Document::resolved() const {
  std::string out;
  for (const auto& table : state_->tables) {
    const std::string name = table->listed ? "[[" + table->name + "]]\n" : "[" + table->name + "]\n";
    out += (out.empty() ? "" : "\n") + name + table->resolved("");
  }
  return out;
}

}  // namespace peft

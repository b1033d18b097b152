#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "options/codec.h"
#include "options/document.h"
#include "options/table.h"
#include "peft/error.h"

namespace peft {

using detail::Entries;
using detail::Entry;
using detail::Place;
using detail::Source;
using detail::Value;

namespace detail {

void Errors::add(const Place& place, const std::string& text) {
  std::string where;
  if (place.source) where = printable(place.source->name);
  if (place.line != 0) where += ":" + std::to_string(place.line) + ":" + std::to_string(place.column);
  lines_.push_back({place.source ? place.source->order : 0, place.line, place.column, where + ": " + text});
}

std::string Errors::text() const {
  std::vector<Line> sorted = lines_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Line& a, const Line& b) {
    return std::tie(a.order, a.line, a.column) < std::tie(b.order, b.line, b.column);
  });
  std::string out;
  for (const Line& line : sorted) out += (out.empty() ? "" : "\n") + line.text;
  return out;
}

}  // namespace detail

Document::Document(std::unique_ptr<State> state) : state_(std::move(state)) {}
Document::~Document() = default;
Document::Document(Document&&) noexcept = default;

Document Document::from_file(const std::string& path) {
  constexpr std::uintmax_t most = 16 << 20;
  std::error_code error;
  const std::filesystem::path file(path);
  if (!std::filesystem::is_regular_file(file, error))
    throw ConfigError(printable(path) + ": " + (error ? error.message() : "not a regular file"));
  if (std::filesystem::file_size(file, error) > most)
    throw ConfigError(printable(path) + ": larger than 16 MiB, which no experiment is");
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (stream.peek() != std::ifstream::traits_type::eof()) text << stream.rdbuf();
  if (stream.bad() || !text) throw ConfigError(printable(path) + ": cannot be read");
  auto state = std::make_unique<State>();
  state->source = std::make_shared<Source>(Source{path, std::filesystem::absolute(file).parent_path()});
  state->entries = detail::parse_toml(text.str(), state->source);
  return Document(std::move(state));
}

Document Document::from_text(const std::string& toml, const std::string& name) {
  auto state = std::make_unique<State>();
  state->source = std::make_shared<Source>(Source{name, std::filesystem::current_path()});
  state->entries = detail::parse_toml(toml, state->source);
  return Document(std::move(state));
}

void Document::set(const std::string& assignment) {
  const std::string usage = "--set '" + printable(assignment) + "': write table.key=value, e.g. --set adapter.r=16";
  const std::size_t equals = assignment.find('=');
  const std::size_t dot = assignment.find('.');
  if (equals == std::string::npos || dot > equals) throw ConfigError(usage);
  const std::string table = assignment.substr(0, dot), key = assignment.substr(dot + 1, equals - dot - 1);
  if (table.empty() || key.empty() || detail::write_key(table) != table || detail::write_key(key) != key)
    throw ConfigError(usage);
  const auto source =
      std::make_shared<Source>(Source{"--set " + assignment, std::filesystem::current_path(), ++state_->assignments});
  Value value = detail::parse_assigned(assignment.substr(equals + 1), source);
  Entry* holder = state_->find(table);
  if (holder == nullptr) holder = &state_->entries.emplace_back(Entry{table, {source}, {Entries{}, {state_->source}}});
  auto* entries = std::get_if<Entries>(&holder->value.data);
  if (entries == nullptr) return;  // table() says what is wrong with it
  std::erase_if(*entries, [&](const Entry& old) { return old.key == key; });
  entries->push_back({key, {source}, std::move(value)});
}

Entry* Document::State::find(std::string_view table) {
  for (Entry& entry : entries)
    if (entry.key == table) return &entry;
  return nullptr;
}

bool Document::has_table(std::string_view name) const { return state_->find(name) != nullptr; }

Options Document::table(std::string_view name) {
  for (const auto& table : state_->tables)
    if (table->name == name) return Options(table);
  auto table = std::make_shared<Options::Table>();
  table->name = name;
  table->label = state_->kind == ErrorKind::config ? "[" + table->name + "] " : "";
  table->errors = state_->errors;
  table->place = {state_->source};
  if (const Entry* entry = state_->find(name)) {
    table->place = entry->value.place;
    if (const auto* entries = std::get_if<Entries>(&entry->value.data))
      table->entries = *entries;
    else if (std::holds_alternative<detail::Values>(entry->value.data))
      state_->errors->add(entry->place,
                          table->label + "is a list of tables; there can be only one, written [" + table->name + "]");
    else
      state_->errors->add(entry->place, "'" + table->name + "' must be a table, written [" + table->name + "], not " +
                                            detail::described(entry->value));
  }
  state_->tables.push_back(table);
  return Options(table);
}

void Document::finish() {
  StringList known;
  std::string list;
  for (const auto& table : state_->tables) {
    table->report_unknown();
    known.push_back(table->name);
    list += (list.empty() ? "[" : ", [") + table->name + "]";
  }
  for (const Entry& entry : state_->entries) {
    if (std::find(known.begin(), known.end(), entry.key) != known.end()) continue;
    const bool table = std::holds_alternative<Entries>(entry.value.data);
    const std::string near = nearest(entry.key, known), name = printable(entry.key);
    state_->errors->add(entry.place,
                        (table ? "unknown table [" + name + "]; " : "key '" + name + "' outside any table; ") +
                            (near.empty() || !table ? "known tables: " + list : "did you mean [" + near + "]?"));
  }
  if (state_->errors->empty()) return;
  if (state_->kind == ErrorKind::input) throw InputError(state_->errors->text());
  throw ConfigError(state_->errors->text());
}

std::string Document::resolved() const {
  std::string out;
  for (const auto& table : state_->tables) {
    out += (out.empty() ? "[" : "\n[") + table->name + "]\n" + table->resolved("");
  }
  return out;
}

}  // namespace peft

#include "options/codec.h"

#include <charconv>
#include <cmath>
#include <cstdio>

namespace peft::detail {
namespace {

/// Products of a few options must fit fp32.
constexpr double kMaxNumber = 1e30;

template <class T>
bool read_exact(const Value& in, T& out, const Value*& wrong) {
  if (const T* value = std::get_if<T>(&in.data)) {
    out = *value;
    return true;
  }
  wrong = &in;
  return false;
}

template <class T>
bool read_list(const Value& in, std::vector<T>& out, const Value*& wrong) {
  const auto* values = std::get_if<ValueList>(&in.data);
  wrong = &in;
  if (values == nullptr) return false;
  std::vector<T> list;
  for (const Value& value : *values) {
    T element{};
    if (!read(value, element, wrong)) return false;
    list.push_back(std::move(element));
  }
  out = std::move(list);
  return true;
}

template <class T>
bool read_map(const Value& in, std::map<std::string, T>& out, const Value*& wrong) {
  const auto* entries = std::get_if<Entries>(&in.data);
  wrong = &in;
  if (entries == nullptr) return false;
  std::map<std::string, T> map;
  for (const Entry& entry : *entries)
    if (!read(entry.value, map[entry.key], wrong)) return false;
  out = std::move(map);
  return true;
}

/// Reads one of the types that `out` can hold.
template <class T, class Variant>
bool read_as(const Value& in, Variant& out, const Value*& wrong) {
  T value;
  if (!read(in, value, wrong)) return false;
  out = std::move(value);
  return true;
}

template <class List>
std::string write_list(const List& list) {
  std::string out = "[";
  for (const auto& element : list) out += (out.size() > 1 ? ", " : "") + write(element);
  return out + "]";
}

template <class Map>
std::string write_map(const Map& map) {
  std::string out = "{";
  for (const auto& [key, value] : map) out += (out.size() > 1 ? ", " : " ") + write_key(key) + " = " + write(value);
  return out + (map.empty() ? "}" : " }");
}

}  // namespace

std::string type_name(bool) { return "a boolean"; }
std::string type_name(int64_t) { return "an integer"; }
std::string type_name(double) { return "a number"; }
std::string type_name(const std::string&) { return "a string"; }
std::string type_name(const StringList&) { return "a list of strings"; }
std::string type_name(const IntList&) { return "an integer or a list of integers"; }
std::string type_name(const StringOrList&) { return "a string or a list of strings"; }
std::string type_name(const BoolOrString&) { return "a boolean or a string"; }
std::string type_name(const IntMap&) { return "a table of integers"; }
std::string type_name(const NumberMap&) { return "a table of numbers"; }
std::string type_name(const BoolListMap&) { return "a table of lists of booleans"; }
std::string type_name(const IntListMap&) { return "a table of lists of integers"; }
std::string type_name(const IntListOrMap&) { return "a list of integers or a table of such lists"; }
std::string type_name(const IntPairList&) { return "a list of pairs of integers"; }

bool read(const Value& in, bool& out, const Value*& wrong) { return read_exact(in, out, wrong); }
bool read(const Value& in, int64_t& out, const Value*& wrong) { return read_exact(in, out, wrong); }
bool read(const Value& in, std::string& out, const Value*& wrong) { return read_exact(in, out, wrong); }
bool read(const Value& in, StringList& out, const Value*& wrong) { return read_list(in, out, wrong); }
bool read(const Value& in, IntList& out, const Value*& wrong) {
  if (const auto* integer = std::get_if<int64_t>(&in.data)) return out = {*integer}, true;
  return read_list(in, out, wrong);
}
bool read(const Value& in, IntMap& out, const Value*& wrong) { return read_map(in, out, wrong); }
bool read(const Value& in, NumberMap& out, const Value*& wrong) { return read_map(in, out, wrong); }
bool read(const Value& in, BoolList& out, const Value*& wrong) { return read_list(in, out, wrong); }
bool read(const Value& in, BoolListMap& out, const Value*& wrong) { return read_map(in, out, wrong); }
bool read(const Value& in, IntListMap& out, const Value*& wrong) { return read_map(in, out, wrong); }
bool read(const Value& in, IntListOrMap& out, const Value*& wrong) {
  if (std::holds_alternative<Entries>(in.data)) return read_as<IntListMap>(in, out, wrong);
  return read_as<IntList>(in, out, wrong);
}

bool read(const Value& in, IntPair& out, const Value*& wrong) {
  std::vector<int64_t> pair;
  if (!read_list(in, pair, wrong)) return false;
  if (pair.size() != 2) return wrong = &in, false;
  out = {pair[0], pair[1]};
  return true;
}
bool read(const Value& in, IntPairList& out, const Value*& wrong) { return read_list(in, out, wrong); }

bool read(const Value& in, double& out, const Value*& wrong) {
  double number = 0;
  if (const auto* integer = std::get_if<int64_t>(&in.data))
    number = static_cast<double>(*integer);
  else if (!read_exact(in, number, wrong) || !(std::abs(number) <= kMaxNumber))
    return wrong = &in, false;
  out = number;
  return true;
}

bool read(const Value& in, StringOrList& out, const Value*& wrong) {
  if (const auto* text = std::get_if<std::string>(&in.data)) {
    out = *text;
    return true;
  }
  StringList list;
  if (!read(in, list, wrong)) return false;
  out = std::move(list);
  return true;
}

bool read(const Value& in, BoolOrString& out, const Value*& wrong) {
  if (const auto* boolean = std::get_if<bool>(&in.data))
    out = *boolean;
  else if (const auto* text = std::get_if<std::string>(&in.data))
    out = *text;
  else
    return wrong = &in, false;
  return true;
}

std::string write(bool value) { return value ? "true" : "false"; }
std::string write(int64_t value) { return std::to_string(value); }

std::string write(double value) {
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, value).ptr;  // the shortest text that reads back equal
  std::string out(buffer, end);
  if (std::isfinite(value) && out.find_first_of(".e") == std::string::npos) out += ".0";
  return out;
}

std::string write(const std::string& value) {
  std::string out = "\"";
  for (const char c : value) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (byte < 0x20 || byte == 0x7F) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04X", byte);
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

std::string write(const StringList& value) { return write_list(value); }
std::string write(const IntList& value) { return write_list(value); }
std::string write(const StringOrList& value) {
  return std::visit([](const auto& alternative) { return write(alternative); }, value);
}
std::string write(const BoolOrString& value) {
  return std::visit([](const auto& alternative) { return write(alternative); }, value);
}
std::string write(const IntMap& value) { return write_map(value); }
std::string write(const NumberMap& value) { return write_map(value); }
std::string write(const BoolList& value) { return write_list(value); }
std::string write(const BoolListMap& value) { return write_map(value); }
std::string write(const IntListMap& value) { return write_map(value); }
std::string write(const IntListOrMap& value) {
  return std::visit([](const auto& alternative) { return write(alternative); }, value);
}

std::string write(const IntPair& value) { return write_list(std::vector{value.first, value.second}); }
std::string write(const IntPairList& value) { return write_list(value); }

std::string write_key(const std::string& key) {
  constexpr auto bare = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
  return !key.empty() && key.find_first_not_of(bare) == std::string::npos ? key : write(key);
}

std::string describe(const Value& value) {
  static const char* const names[] = {"a boolean", "an integer", "a number", "a string", "", "a list", "a table"};
  if (const auto* other = std::get_if<Value::Other>(&value.data)) return other->what;
  if (const auto* number = std::get_if<double>(&value.data)) {
    if (!std::isfinite(*number)) return std::isnan(*number) ? "nan" : "inf";
    if (std::abs(*number) > kMaxNumber) return "one beyond 1e30";
  }
  return names[value.data.index()];
}

}  // namespace peft::detail

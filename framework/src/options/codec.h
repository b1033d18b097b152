#pragma once
// Reads a Value as each of the types that an option can have, and writes it as TOML.

#include <optional>
#include <string>

#include "options/value.h"
#include "peft/options/options.h"

namespace peft::detail {

/// Name of an option's type in messages, with its article: "an integer".
std::string type_name(bool);
std::string type_name(int64_t);
std::string type_name(double);
std::string type_name(const std::string&);
std::string type_name(const StringList&);
std::string type_name(const IntList&);
std::string type_name(const StringOrList&);
std::string type_name(const BoolOrString&);
std::string type_name(const IntMap&);
std::string type_name(const NumberMap&);
std::string type_name(const BoolListMap&);
std::string type_name(const IntListMap&);
std::string type_name(const IntListOrMap&);
std::string type_name(const IntPairList&);

/// Reads a value of exactly that type; only a double accepts an integer, too. Otherwise returns false, leaves `out`
/// unchanged and points `wrong` to the value of the wrong type: an element of a list, or `in` itself.
bool read(const Value& in, bool& out, const Value*& wrong);
bool read(const Value& in, int64_t& out, const Value*& wrong);
bool read(const Value& in, double& out, const Value*& wrong);
bool read(const Value& in, std::string& out, const Value*& wrong);
bool read(const Value& in, StringList& out, const Value*& wrong);
bool read(const Value& in, IntList& out, const Value*& wrong);
bool read(const Value& in, StringOrList& out, const Value*& wrong);
bool read(const Value& in, BoolOrString& out, const Value*& wrong);
bool read(const Value& in, IntMap& out, const Value*& wrong);
bool read(const Value& in, NumberMap& out, const Value*& wrong);
bool read(const Value& in, BoolList& out, const Value*& wrong);
bool read(const Value& in, BoolListMap& out, const Value*& wrong);
bool read(const Value& in, IntListMap& out, const Value*& wrong);
bool read(const Value& in, IntListOrMap& out, const Value*& wrong);
bool read(const Value& in, IntPair& out, const Value*& wrong);
bool read(const Value& in, IntPairList& out, const Value*& wrong);

/// Writes a value as TOML that reads back as the same value.
std::string write(bool value);
std::string write(int64_t value);
std::string write(double value);
std::string write(const std::string& value);
std::string write(const StringList& value);
std::string write(const IntList& value);
std::string write(const StringOrList& value);
std::string write(const BoolOrString& value);
std::string write(const IntMap& value);
std::string write(const NumberMap& value);
std::string write(const BoolList& value);
std::string write(const BoolListMap& value);
std::string write(const IntListMap& value);
std::string write(const IntListOrMap& value);
std::string write(const IntPair& value);
std::string write(const IntPairList& value);
/// Writes a key, quoted if TOML requires it.
std::string write_key(const std::string& key);

template <class T>
std::string type_name(const std::optional<T>&) {
  return type_name(T{});
}
template <class T>
bool read(const Value& in, std::optional<T>& out, const Value*& wrong) {
  T value{};
  if (!read(in, value, wrong)) return false;
  out = std::move(value);
  return true;
}
/// "" if there is no value: TOML expresses that by leaving the key out.
template <class T>
std::string write(const std::optional<T>& value) {
  return value ? write(*value) : "";
}

/// Describes a value's type, for "…, not a string".
std::string describe(const Value& value);

}  // namespace peft::detail

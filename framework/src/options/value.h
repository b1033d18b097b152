#pragma once
// What the readers of TOML and JSON hand to the typed options: plain values that know where they were written.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace peft::detail {

/// A file, or one `--set`.
struct Source {
  std::string name;              ///< as messages show it
  std::filesystem::path folder;  ///< relative paths start here
  int order = 0;                 ///< of its messages among those of other sources
};

struct Place {
  std::shared_ptr<const Source> source;
  uint32_t line = 0, column = 0;  ///< from 1; 0: unknown
};

struct Entry;
struct Value {
  struct Other {
    const char* what;  ///< a type no option has, e.g. "a date"
  };
  std::variant<bool, int64_t, double, std::string, Other, std::vector<Value>, std::vector<Entry>> data;
  Place place;
  bool ignorable = false;  ///< says "off": no error where nobody knows the key
};
struct Entry {
  std::string key;
  Place place;
  Value value;
};
using Values = std::vector<Value>;
using Entries = std::vector<Entry>;

/// Throws ConfigError with line and column for what is not TOML.
Entries parse_toml(const std::string& text, const std::shared_ptr<const Source>& source);
/// The right side of `--set key=…`: a TOML value, or a bare string.
Value parse_assigned(const std::string& text, const std::shared_ptr<const Source>& source);

}  // namespace peft::detail

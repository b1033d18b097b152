#pragma once
// Values with their source locations: what the TOML and JSON readers pass to the typed options.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace peft::detail {

/// A file, an overlay or one `--set` option.
struct Source {
  std::string name;              ///< as shown in messages
  std::filesystem::path folder;  ///< base of relative paths
  int order = 0;                 ///< position of its messages among those of other sources; 0: the file
  bool is_assignment = false;    ///< a `--set`: messages show all of it, without line numbers
};

struct SourceLocation {
  std::shared_ptr<const Source> source;
  uint32_t line = 0, column = 0;  ///< from 1; 0: unknown
};

struct Entry;
struct Value {
  struct Other {
    const char* what;  ///< name of a type that no option has, such as "a date or time"
  };
  std::variant<bool, int64_t, double, std::string, Other, std::vector<Value>, std::vector<Entry>> data;
  SourceLocation location;
  bool ignorable = false;  ///< disables a feature, so it is not an error if the key is unknown
};
struct Entry {
  std::string key;
  SourceLocation location;
  Value value;
};
using ValueList = std::vector<Value>;
using Entries = std::vector<Entry>;

/// Throws ConfigError with line and column if `text` is not TOML.
Entries parse_toml(const std::string& text, const std::shared_ptr<const Source>& source);
/// Parses the right side of `--set key=…`: a TOML value, or a bare string.
Value parse_assigned(const std::string& text, const std::shared_ptr<const Source>& source);

}  // namespace peft::detail

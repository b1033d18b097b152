#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "peft/base/export.h"

namespace peft {

using StringList = std::vector<std::string>;
using IntList = std::vector<int64_t>;
using StringOrList = std::variant<std::string, StringList>;
using BoolOrString = std::variant<bool, std::string>;
using IntMap = std::map<std::string, int64_t>;
using NumberMap = std::map<std::string, double>;
using BoolList = std::vector<bool>;
using BoolListMap = std::map<std::string, BoolList>;
using IntListMap = std::map<std::string, IntList>;
using IntListOrMap = std::variant<IntList, IntListMap>;
using IntPair = std::pair<int64_t, int64_t>;
using IntPairList = std::vector<IntPair>;

class Options;
namespace detail {
struct Value;
}

/// Checks of the value that was just read. Each failed check adds a line to the error that Document::finish() throws.
class PEFT_API OptionRule {
 public:
  /// Adds an error if not `ok`. `message` completes the sentence "'key' …", for example "must be positive". Does
  /// nothing if the value had the wrong type, which is already an error.
  OptionRule& require(bool ok, std::string_view message);
  /// Requires a size from 1 to `max`. For numbers that set the size of memory or the length of loops: a downloaded
  /// adapter's config is read as options, too, and must not exhaust either.
  OptionRule& in_size_limit(int64_t value, int64_t max = kMaxSize);
  /// The same for each value of a table of ranks.
  OptionRule& in_size_limit(const IntMap& values);

  static constexpr int64_t kMaxSize = int64_t{1} << 16;

 private:
  friend class Options;
  OptionRule(Options& options, std::string key, bool readable)
      : options_(options), key_(std::move(key)), readable_(readable) {}
  Options& options_;
  std::string key_;
  bool readable_;
};

/// One option as `peft-run describe` prints it.
struct OptionInfo {
  std::string key;
  std::string type;           ///< e.g. "integer", "string or list of strings"
  std::string default_value;  ///< as TOML; "" if the option has no default
  std::string help;
};

/// One table of an experiment, read into a struct:
///
///     LoraOptions o;                                             // its members hold the defaults
///     in.get("r", o.r, "rank of the update").require(o.r > 0, "must be positive");
///
/// Reading does not throw. Wrong types, unknown keys and broken rules are collected with file, line and column, and
/// Document::finish() throws them all at once. An absent key leaves the value unchanged.
class PEFT_API Options {
 public:
  Options();  ///< an empty table: all options keep their defaults, which described() then lists
  ~Options();
  Options(Options&&) noexcept;
  Options& operator=(Options&&) noexcept;

  OptionRule get(std::string_view key, bool& value, std::string_view help);
  OptionRule get(std::string_view key, int64_t& value, std::string_view help);
  OptionRule get(std::string_view key, double& value, std::string_view help);  ///< accepts integers, too
  OptionRule get(std::string_view key, std::string& value, std::string_view help);
  OptionRule get(std::string_view key, StringList& value, std::string_view help);
  OptionRule get(std::string_view key, IntList& value, std::string_view help);
  OptionRule get(std::string_view key, IntPairList& value, std::string_view help);
  OptionRule get(std::string_view key, StringOrList& value, std::string_view help);
  OptionRule get(std::string_view key, BoolOrString& value, std::string_view help);
  OptionRule get(std::string_view key, IntMap& value, std::string_view help);
  OptionRule get(std::string_view key, NumberMap& value, std::string_view help);
  OptionRule get(std::string_view key, BoolListMap& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<int64_t>& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<double>& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<std::string>& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<StringList>& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<StringOrList>& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<IntList>& value, std::string_view help);
  OptionRule get(std::string_view key, std::optional<IntListOrMap>& value, std::string_view help);
  /// Reads a path and makes it absolute. Relative paths start at the folder of the file that contains them, those of
  /// `--set` at the working directory.
  OptionRule get_path(std::string_view key, std::string& value, std::string_view help);
  OptionRule get_paths(std::string_view key, StringList& value, std::string_view help);  ///< one path or a list

  /// The options of a nested table; an absent table is empty. Repeated calls return the same table.
  Options table(std::string_view key);

  bool has(std::string_view key) const;
  /// Adds an error at `key`, or at the table if the key is absent. `message` completes the sentence "'key' …".
  void error(std::string_view key, std::string_view message);
  /// The options read so far, in order. Those of nested tables come last, as "table.key".
  std::vector<OptionInfo> described() const;

 private:
  friend class Document;
  struct Table;
  explicit Options(std::shared_ptr<Table> table);
  template <class T>
  OptionRule read(std::string_view key, T& value, std::string_view help);
  std::shared_ptr<Table> table_;
};

/// The entry of `known` with the smallest edit distance to `word`, for "did you mean"; "" if all are too different.
PEFT_API std::string nearest(std::string_view word, const StringList& known);

}  // namespace peft

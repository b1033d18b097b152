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

/// Further demands on the value just read; each that fails is one more line of the final error.
class PEFT_API OptionRule {
 public:
  /// The value breaks a rule: `message` completes the sentence "'key' …", e.g. "must be positive". Silent where the
  /// value already had the wrong type.
  OptionRule& require(bool ok, std::string_view message);
  /// A number that memory or loops are as long as: from 1 to `most`. What comes with a downloaded adapter is read as
  /// options, too, and must not make more of either than anyone would train.
  OptionRule& in_size_limit(int64_t value, int64_t most = kMaxSize);
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
  std::string default_value;  ///< as TOML; "" where the option is absent unless written
  std::string help;
};

/// One table of an experiment, read into a struct:
///
///     LoraOptions o;                                             // the defaults live here, once
///     in.get("r", o.r, "rank of the update").require(o.r > 0, "must be positive");
///
/// Nothing throws while reading: wrong types, unknown keys and broken rules are gathered, with file, line
/// and column, and told all at once by Document::finish(). An absent key leaves the value as it is.
class PEFT_API Options {
 public:
  Options();  ///< an empty table: every default, and the recorder behind `describe`
  ~Options();
  Options(Options&&) noexcept;
  Options& operator=(Options&&) noexcept;

  OptionRule get(std::string_view key, bool& value, std::string_view help);
  OptionRule get(std::string_view key, int64_t& value, std::string_view help);
  OptionRule get(std::string_view key, double& value, std::string_view help);  ///< an integer is a number too
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
  /// A path; relative ones are taken from the folder of the file that names them (`--set`: the current folder).
  OptionRule get_path(std::string_view key, std::string& value, std::string_view help);
  OptionRule get_paths(std::string_view key, StringList& value, std::string_view help);  ///< one path or a list

  /// A table within this one, as its options; an absent one is empty. The same table each time it is asked for.
  Options table(std::string_view key);

  bool has(std::string_view key) const;
  /// An error at `key` (or at the table, if it is not written there): `message` completes "'key' …".
  void error(std::string_view key, std::string_view message);
  /// What was asked for so far, in order; what lies in tables within comes last, as "table.key".
  std::vector<OptionInfo> described() const;

 private:
  friend class Document;
  struct Table;
  explicit Options(std::shared_ptr<Table> table);
  template <class T>
  OptionRule read(std::string_view key, T& value, std::string_view help);
  std::shared_ptr<Table> table_;
};

/// The nearest of `known` to `word` by edit distance, or "" if none is near: for "did you mean".
PEFT_API std::string nearest(std::string_view word, const StringList& known);

}  // namespace peft

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "peft/export.h"

namespace peft {

using StringList = std::vector<std::string>;
using IntList = std::vector<int64_t>;
using StringOrList = std::variant<std::string, StringList>;
using BoolOrString = std::variant<bool, std::string>;
using IntMap = std::map<std::string, int64_t>;
using NumberMap = std::map<std::string, double>;

class Options;

/// Further demands on the value just read; each that fails is one more line of the final error.
class PEFT_API Check {
 public:
  /// The value breaks a rule: `message` completes the sentence "'key' …", e.g. "must be positive".
  Check& require(bool ok, std::string_view message);

 private:
  friend class Options;
  Check(Options& options, std::string key) : options_(options), key_(std::move(key)) {}
  Options& options_;
  std::string key_;
};

/// One option as `peft-run describe` prints it.
struct OptionInfo {
  std::string key, type, default_value, help;
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

  Check get(std::string_view key, bool& value, std::string_view help);
  Check get(std::string_view key, int64_t& value, std::string_view help);
  Check get(std::string_view key, double& value, std::string_view help);  ///< an integer is a number too
  Check get(std::string_view key, std::string& value, std::string_view help);
  Check get(std::string_view key, StringList& value, std::string_view help);
  Check get(std::string_view key, IntList& value, std::string_view help);
  Check get(std::string_view key, StringOrList& value, std::string_view help);
  Check get(std::string_view key, BoolOrString& value, std::string_view help);
  Check get(std::string_view key, IntMap& value, std::string_view help);
  Check get(std::string_view key, NumberMap& value, std::string_view help);
  Check get(std::string_view key, std::optional<int64_t>& value, std::string_view help);
  Check get(std::string_view key, std::optional<double>& value, std::string_view help);
  Check get(std::string_view key, std::optional<std::string>& value, std::string_view help);
  Check get(std::string_view key, std::optional<StringOrList>& value, std::string_view help);
  Check get(std::string_view key, std::optional<IntList>& value, std::string_view help);
  /// A path; relative ones are taken from the folder of the file that names them (`--set`: the current folder).
  Check get_path(std::string_view key, std::string& value, std::string_view help);
  Check get_paths(std::string_view key, StringList& value, std::string_view help);  ///< one path or a list

  bool has(std::string_view key) const;
  /// An error at `key` (or at the table, if it is not written there).
  void error(std::string_view key, std::string_view message);
  /// What was asked for so far, in order.
  const std::vector<OptionInfo>& described() const;

  struct Table;
  explicit Options(std::shared_ptr<Table> table);

 private:
  friend class Document;
  std::shared_ptr<Table> table_;
};

/// A whole experiment: the file, the `--set` layer over it, and the errors gathered while it was read.
class PEFT_API Document {
 public:
  /// Throws ConfigError for a file that cannot be read or is not TOML (with line and column).
  static Document from_file(const std::string& path);
  static Document from_text(const std::string& toml, const std::string& name = "<text>");
  ~Document();
  Document(Document&&) noexcept;

  /// `table.key=value`; the value is TOML, or a bare string. The layer over the file.
  void set(const std::string& assignment);
  bool has_table(std::string_view name) const;
  /// The table's options; an absent table is an empty one.
  Options table(std::string_view name);
  /// Throws ConfigError with every error gathered: unknown tables and keys (with "did you mean"), types, rules.
  void finish();
  /// All that was read, with defaults filled in, as TOML: the file that repeats the run. Paths are absolute.
  std::string resolved() const;

 private:
  struct State;
  explicit Document(std::shared_ptr<State> state);
  std::shared_ptr<State> state_;
};

/// The nearest of `known` to `word` by edit distance, or "" if none is near: for "did you mean".
PEFT_API std::string nearest(std::string_view word, const StringList& known);

}  // namespace peft

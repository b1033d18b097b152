#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "peft/base/export.h"
#include "peft/options/name_hints.h"
#include "peft/options/options.h"

namespace peft {

/// An experiment: the TOML file, the `--set` assignments that override it, and the errors found while reading it.
class PEFT_API Document {
 public:
  /// Throws ConfigError, with line and column, if the file cannot be read, is larger than 16 MiB or is not TOML.
  static Document from_file(const std::string& path);
  /// The same for text. `name` is used as the file name in messages; relative paths start at the working directory.
  static Document from_text(const std::string& toml, const std::string& name = "<text>");
  /// A document with one table, read from HF PEFT's `adapter_config.json` at `path`. Its errors are InputErrors. Keys
  /// of HF PEFT's bookkeeping are ignored, and so are unknown keys that disable a feature (null, false, empty, "none").
  /// An initialization or dropout that is not implemented is noted, because it does not change a finished adapter.
  /// `ignore_unknown`: other unknown keys are noted, too.
  static Document from_adapter_config(const std::string& table, const nlohmann::json& config, const std::string& path,
                                      bool ignore_unknown = false);
  ~Document();
  Document(Document&&) noexcept;

  /// Each table of the file at `path`, or list of tables, replaces the one of the same name with all its keys. Paths in
  /// it start at its folder, and messages name it. Call it before set(), and before the tables are read. Throws as
  /// from_file() does.
  void overlay(const std::string& path);
  /// finish() names what other tools' keys are called here. `load` is called only if there is an unknown key.
  void set_hints(std::function<NameHints()> load);
  /// Overrides one value of the file: `table.key=value`, or `table.0.key=value` in a list of tables. The value is TOML
  /// or a bare string. Call it before the tables are read. Throws ConfigError if `assignment` has another form.
  void set(const std::string& assignment);
  bool has_table(std::string_view name) const;
  /// The options of the table [name]; an absent table is empty. Repeated calls return the same table.
  Options table(std::string_view name);
  /// The options of each table in a list, written [[name]]; of a single table, written [name]; or of an empty table.
  std::vector<Options> tables(std::string_view name);
  /// Adds an error at the key `name` of `table`: its plugin is missing. Its other keys are not checked.
  void reject_plugin(Options& table, const std::string& message);
  /// Throws if there was an error, with all of them in the order of the file: unknown tables and keys (with "did you
  /// mean"), wrong types, broken rules. PluginError if all of them are missing plugins, else ConfigError.
  void finish();
  /// After finish(): what from_adapter_config() left out, a line each.
  StringList notes() const;
  /// All options that were read, with their defaults, as TOML that repeats the run. Paths are absolute.
  std::string resolved() const;
  /// The options of one table but its `name`, on one line: "lr = 0.001, beta1 = 0.9".
  std::string values(std::string_view table) const;

 private:
  struct State;
  Options add_table(std::string_view name, const detail::Value* value, bool listed);
  explicit Document(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace peft

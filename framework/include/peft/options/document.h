#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "peft/base/export.h"
#include "peft/options/options.h"

namespace peft {

/// A whole experiment: the file, the `--set` layer over it, and the errors gathered while it was read.
class PEFT_API Document {
 public:
  /// Throws ConfigError for a file that cannot be read or is not TOML (with line and column).
  static Document from_file(const std::string& path);
  /// `name` stands in messages for the file; relative paths start at the current folder.
  static Document from_text(const std::string& toml, const std::string& name = "<text>");
  /// One table made from HF PEFT's `adapter_config.json`, whose path is `path`. Its errors are InputErrors. Keys of
  /// PEFT's own bookkeeping are left out, and so are unknown keys that say "off" (null, false, empty, "none").
  static Document from_adapter_config(const std::string& table, const nlohmann::json& config, const std::string& path);
  ~Document();
  Document(Document&&) noexcept;

  /// `table.key=value`, of a list of tables `table.0.key=value`; the value is TOML, or a bare string. The layer over
  /// the file: before the tables are read. Throws ConfigError for what is not such an assignment.
  void set(const std::string& assignment);
  bool has_table(std::string_view name) const;
  /// The table's options; an absent table is an empty one. The same table each time it is asked for.
  Options table(std::string_view name);
  /// Each table of a list, written [[name]]; the one table written [name]; an empty one where there is none.
  std::vector<Options> tables(std::string_view name);
  /// Throws with every error gathered, in the order of the file: unknown tables and keys (with "did you mean"), types,
  /// rules.
  void finish();
  /// All that was read, with defaults filled in, as TOML: the file that repeats the run. Paths are absolute.
  std::string resolved() const;

 private:
  struct State;
  Options add_table(std::string_view name, const detail::Value* value, bool listed);
  explicit Document(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace peft

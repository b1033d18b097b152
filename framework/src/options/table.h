#pragma once
// The state of Options, shared with its Document, which collects the errors.

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "options/value.h"
#include "peft/options/options.h"

namespace peft {
namespace detail {

/// The errors of one document, as one message in the order of the file. A hostile file can have millions of errors:
/// only the first are shown, the others are counted.
class Errors {
 public:
  void add(const SourceLocation& location, const std::string& text);
  bool empty() const { return lines_.empty(); }
  std::size_t count() const;
  bool full() const;  ///< true if further errors are only counted
  std::string text() const;

 private:
  struct Line {
    int order;
    uint32_t line, column;
    std::string text;
  };
  std::vector<Line> lines_;
  std::size_t omitted_ = 0;
};

/// How the config of a finished adapter is read: its tensors are there, so it may have values that only training needs.
class SavedConfig {
 public:
  explicit SavedConfig(std::string method) : method_(std::move(method)) {}
  /// True if `key` of `table` ("adapter" or "adapter.eva_config") matters only when an adapter is initialized or
  /// trained; its value is then noted.
  bool passes(const std::string& table, std::string_view key, const Value& value);
  void add_unknown(const std::string& table, const std::string& key);
  /// Keys that no option reads: "'a', 'eva_config.b'".
  std::string unknown() const;
  std::size_t num_unknown() const { return num_unknown_; }
  const std::set<std::string>& passed() const { return passed_; }

 private:
  std::string method_;  ///< peft_type in lower case
  std::string unknown_;
  std::size_t num_unknown_ = 0;
  std::set<std::string> passed_;
};

}  // namespace detail

struct Options::Table {
  struct ReadOption {
    OptionInfo info;
    std::string value;  ///< as TOML, after reading
  };
  const detail::Entry* find(std::string_view key) const;
  const ReadOption* find_read(std::string_view key) const;
  std::shared_ptr<Table> child(std::string_view key) const;  ///< null if it was not read
  void error(std::string_view key, std::string_view message);
  /// `path` relative to the folder of the source that contains it, or of the document if it is a default. Adds an error
  /// if the result is not UTF-8, because of the folder's name.
  std::string absolute(std::string_view key, const std::string& path);
  /// Sets the type and value of an option that was read as text but is a path.
  void set_resolved(std::string_view key, const std::string& type, const std::string& value);
  /// Adds an error for each key that was not read. `hint(key, table)` says what another tool's key is called here.
  void report_unknown_keys(const std::function<std::string(const std::string&, const std::string&)>& hint);
  /// Whether the key was read, as an option or as a table; also if its plugin is unknown and would have read it.
  bool may_have(const std::string& key) const;
  /// The options that were read as TOML lines "prefix.key = value".
  std::string resolved(const std::string& prefix) const;
  std::string key() const { return name.substr(name.rfind('.') + 1); }  ///< last component of `name`

  std::string name;                 ///< path in the document: "adapter.eva_config"
  std::string label;                ///< prefix of messages: "[adapter] "
  bool listed = false;              ///< written [[name]]
  bool has_unknown_plugin = false;  ///< its other keys are not checked, because nothing has read them
  detail::SourceLocation location;
  detail::Entries entries;
  std::vector<ReadOption> read_options;
  std::vector<std::shared_ptr<Table>> children;
  std::shared_ptr<detail::Errors> errors = std::make_shared<detail::Errors>();
  std::shared_ptr<detail::SavedConfig> saved;  ///< null for an experiment
};

}  // namespace peft

#pragma once
// The state behind Options, shared with the Document that gathers the errors.

#include <memory>
#include <string>
#include <vector>

#include "options/value.h"
#include "peft/options/options.h"

namespace peft {
namespace detail {

/// The errors of one document; told together, in the order of the file. A hostile file may hold millions: of those only
/// the first are told, the others counted.
class Errors {
 public:
  void add(const Place& place, const std::string& text);
  bool empty() const { return lines_.empty(); }
  bool full() const;  ///< what is added now is only counted
  std::string text() const;

 private:
  struct Line {
    int order;
    uint32_t line, column;
    std::string text;
  };
  std::vector<Line> lines_;
  std::size_t others_ = 0;
};

}  // namespace detail

struct Options::Table {
  struct Asked {
    OptionInfo info;
    std::string value;  ///< as TOML, after reading
  };
  const detail::Entry* find(std::string_view key) const;
  const Asked* asked(std::string_view key) const;
  std::shared_ptr<Table> child(std::string_view key) const;  ///< null if it was not asked for
  void error(std::string_view key, std::string_view message);
  /// `path` from the folder of the source that names it (or of the document, for a default). An error where that is not
  /// UTF-8, as the folder may be.
  std::string absolute(std::string_view key, const std::string& path);
  /// What a path option is, once it has been read as text.
  void retell(std::string_view key, const std::string& type, const std::string& value);
  /// An error for each key that nobody asked for.
  void report_unknown();
  /// "prefix.key = value" lines of what was read, as TOML.
  std::string resolved(const std::string& prefix) const;

  std::string name, label;  ///< name: from the document, "adapter.eva_config"; label: as messages begin, "[adapter] "
  bool listed = false;      ///< written [[name]]
  detail::Place place;
  detail::Entries entries;
  std::vector<Asked> all_asked;
  std::vector<std::shared_ptr<Table>> children;
  std::shared_ptr<detail::Errors> errors = std::make_shared<detail::Errors>();
};

}  // namespace peft

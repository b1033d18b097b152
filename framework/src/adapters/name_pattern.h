#pragma once

#include <memory>
#include <optional>
#include <string>

namespace peft {

/// A regular expression over module names, in Python's syntax as far as Oniguruma has it. It is bounded: an expression
/// that backtracks without end throws ConfigError. `where` begins every error, e.g. "[adapter] target_modules".
class NamePattern {
 public:
  /// Must match at the name's beginning, as Python's re.match.
  static NamePattern beginning(const std::string& expression, const std::string& where);
  /// Must match the whole name, as re.fullmatch.
  static NamePattern whole(const std::string& expression, const std::string& where);
  /// Must match from a dot, or the beginning, to the name's end.
  static NamePattern end(const std::string& expression, const std::string& where);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;

  /// The text of the group named `idx` ("" if there is none), or nothing where `name` does not match.
  std::optional<std::string> match(const std::string& name) const;

 private:
  struct Compiled;
  explicit NamePattern(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace peft

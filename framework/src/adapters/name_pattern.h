#pragma once

#include <memory>
#include <optional>
#include <string>

namespace peft {

/// A regular expression over module names, in Python's syntax as far as Oniguruma supports it. Its steps are limited:
/// an expression that backtracks too much throws ConfigError. `where` starts each error, e.g. "[adapter]
/// target_modules".
class NamePattern {
 public:
  /// Matches at the start of the name, as Python's re.match.
  static NamePattern prefix(const std::string& expression, const std::string& where);
  /// Matches the full name, as re.fullmatch.
  static NamePattern full(const std::string& expression, const std::string& where);
  /// Matches from the start or from after a dot to the end of the name.
  static NamePattern suffix(const std::string& expression, const std::string& where);
  ~NamePattern();
  NamePattern(NamePattern&&) noexcept;

  /// The text of the group `idx` ("" if the pattern has none); empty if `name` does not match.
  std::optional<std::string> match(const std::string& name) const;

 private:
  struct Compiled;
  explicit NamePattern(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace peft

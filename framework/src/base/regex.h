#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace peft {

/// The expression does not compile, or a search was given up. what() is safe to print.
struct RegexError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Budget of all searches of one text together. A match can start at each byte, and each attempt can scan all bytes
/// after it, so the cost of hostile input grows with the square of its length. Backtracking is limited in steps.
/// Oniguruma does not count forward scans; CPU time limits them, to hundreds of times what a text of this length needs.
class RegexSteps {
 public:
  explicit RegexSteps(std::string_view text);

 private:
  friend class Regex;
  /// Takes up to `requested` steps from the budget and returns how many. Throws RegexError if the budget is exhausted.
  unsigned long take(unsigned long requested);
  unsigned long remaining_;
  double max_seconds_, start_;  ///< CPU time of this thread
  unsigned searches_ = 0;
};

/// A regular expression over UTF-8, compiled by Oniguruma. Can be used by several threads at a time.
class Regex {
 public:
  enum class Syntax { oniguruma, python };
  struct Match {
    std::size_t begin, end;
    std::string group;  ///< text of the requested group, "" if it did not match
  };
  /// `max_steps` limits the backtracking of one attempt; 0 means Oniguruma's default.
  Regex(const std::string& expression, Syntax syntax, unsigned long max_steps = 0);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// The first match that starts at byte `from` or later. Throws RegexError if the budget is exhausted.
  std::optional<Match> search(std::string_view text, std::size_t from, RegexSteps& steps) const;
  /// A match that starts at the beginning of the text, with the text of the named group.
  std::optional<Match> match(std::string_view text, const std::string& group) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace peft

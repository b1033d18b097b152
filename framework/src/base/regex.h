#pragma once

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace peft {

/// An expression that does not compile, or a search that gave up; what() is fit to be shown.
struct RegexError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// What all searches of one text may take together: a match may begin at each byte, and each could look at all that are
/// behind it. Steps back are counted; of those ahead Oniguruma tells nothing, so a processor's time bounds them,
/// hundreds of times what a text of this length needs.
class RegexSteps {
 public:
  explicit RegexSteps(std::string_view text);

 private:
  friend class Regex;
  /// Takes at most this many steps of what is left; throws RegexError where nothing is.
  unsigned long take(unsigned long most);
  unsigned long left_;
  double seconds_, begun_;
  unsigned searches_ = 0;
};

/// A compiled regular expression over UTF-8, by Oniguruma.
class Regex {
 public:
  enum class Syntax { oniguruma, python };
  struct Match {
    std::size_t begin, end;
    std::string group;  ///< text of the group asked for, "" if there is none
  };
  /// `most_steps` bounds the backtracking of one attempt; 0: Oniguruma's own limit.
  Regex(const std::string& expression, Syntax syntax, unsigned long most_steps = 0);
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  /// The first match at or behind the byte `from`. Throws RegexError when the text's steps are used up.
  std::optional<Match> search(std::string_view text, std::size_t from, RegexSteps& steps) const;
  /// A match that begins where the text does.
  std::optional<Match> match(std::string_view text, const std::string& group) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace peft

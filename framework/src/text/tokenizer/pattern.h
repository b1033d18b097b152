#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/json_fields.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

struct Span {
  std::size_t begin, end;
  bool match;
};

/// What a text is searched for: a string, a regular expression (Oniguruma, as in HF tokenizers), or a kind of
/// character.
class Pattern {
 public:
  virtual ~Pattern() = default;
  /// Consecutive spans that cover the text. Throws InputError where the regular expression gives up.
  virtual std::vector<Span> spans(std::string_view text) const = 0;
};

std::shared_ptr<const Pattern> literal(std::string text);
/// `where` stands in the error for an expression that does not compile.
std::shared_ptr<const Pattern> regex(const std::string& expression, const std::string& where);
std::shared_ptr<const Pattern> characters(bool (*belongs)(char32_t));
/// The field `pattern`: {"String": …} or {"Regex": …}.
std::shared_ptr<const Pattern> read_pattern(const Fields& in);

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
Behavior read_behavior(const Fields& in, const std::string& otherwise);
/// The non-empty parts (`match` has no meaning in them).
std::vector<Span> split(std::string_view text, const Pattern& pattern, Behavior behavior, bool invert);
std::string replace(std::string_view text, const Pattern& pattern, const std::string& content, TextBudget& budget);

}  // namespace peft::text

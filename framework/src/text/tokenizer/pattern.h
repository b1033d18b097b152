#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "files/json_object_reader.h"
#include "text/tokenizer/budget.h"

namespace peft::text {

struct Span {
  std::size_t begin, end;
  bool match;
};

/// A search pattern: a string, a regular expression (Oniguruma, as in HF tokenizers) or a class of characters.
class Pattern {
 public:
  virtual ~Pattern() = default;
  /// Consecutive spans that cover the text; matches can be empty. Throws InputError if the search is given up.
  virtual std::vector<Span> spans(std::string_view text) const = 0;
};

std::shared_ptr<const Pattern> literal(std::string text);
/// Throws InputError, with `location`, if the expression does not compile.
std::shared_ptr<const Pattern> regex(const std::string& expression, const std::string& location);
std::shared_ptr<const Pattern> characters(bool (*belongs)(char32_t));
/// Reads the member `pattern`: {"String": …} or {"Regex": …}.
std::shared_ptr<const Pattern> read_pattern(const JsonObjectReader& in);

enum class Behavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };
Behavior read_behavior(const JsonObjectReader& in, const std::string& default_value);
/// Splits the text at matches. The spans are not empty; their `match` has no meaning.
std::vector<Span> split(std::string_view text, const Pattern& pattern, Behavior behavior, bool invert);
std::string replace(std::string_view text, const Pattern& pattern, const std::string& content, TextBudget& budget);

}  // namespace peft::text

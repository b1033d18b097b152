#include "text/tokenizer/pattern.h"

#include <algorithm>

#include "base/regex.h"
#include "peft/base/error.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

/// Appends the match [begin, end) and the text between the end of the previous span, `done`, and the match.
void add_match(std::vector<Span>& spans, std::size_t& done, std::size_t begin, std::size_t end) {
  if (done < begin) spans.push_back({done, begin, false});
  spans.push_back({begin, end, true});
  done = end;
}

void add_rest(std::vector<Span>& spans, std::size_t done, std::size_t size) {
  if (done < size) spans.push_back({done, size, false});
}

class Literal : public Pattern {
 public:
  explicit Literal(std::string text) : text_(std::move(text)) {}
  std::vector<Span> spans(std::string_view text) const override {
    std::vector<Span> all;
    std::size_t done = 0;
    if (!text_.empty())
      for (auto at = text.find(text_); at != text.npos; at = text.find(text_, done))
        add_match(all, done, at, at + text_.size());
    add_rest(all, done, text.size());
    return all;
  }

 private:
  std::string text_;
};

class Characters : public Pattern {
 public:
  explicit Characters(bool (*belongs)(char32_t)) : belongs_(belongs) {}
  std::vector<Span> spans(std::string_view text) const override {
    std::vector<Span> all;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size(); at += char_length(text[at]))
      if (belongs_(char_at(text, at))) add_match(all, done, at, at + char_length(text[at]));
    add_rest(all, done, text.size());
    return all;
  }

 private:
  bool (*belongs_)(char32_t);
};

/// In HF tokenizers' Oniguruma "[:punct:]" includes symbols, before 6.9.9 it does not.
std::string with_symbols(std::string expression) {
  constexpr std::string_view punctuation = "[:punct:]", both = "\\p{P}\\p{S}";
  for (std::size_t at = 0; (at = expression.find(punctuation, at)) != std::string::npos; at += both.size())
    expression.replace(at, punctuation.size(), both);
  return expression;
}

class Expression : public Pattern {
 public:
  Expression(const std::string& expression, const std::string& location) try
      : regex_(with_symbols(expression), Regex::Syntax::oniguruma), location_(location) {
  } catch (const RegexError& error) {
    throw InputError(location + ": the regular expression '" + printable(expression) + "' " + error.what());
  }

  /// The matches of rust-onig's find_iter(): an empty one counts unless it follows another match at once.
  std::vector<Span> spans(std::string_view text) const override {
    std::vector<Span> all;
    if (text.empty()) return all;
    std::size_t done = 0;
    bool any = false;
    RegexSteps steps(text);
    for (std::size_t from = 0; from <= text.size();) {
      const auto found = next(text, from, steps);
      if (!found) break;
      if (found->begin == found->end && any && found->end == done) {
        from += from < text.size() ? char_length(text[from]) : 1;
        continue;
      }
      add_match(all, done, found->begin, found->end);
      any = true;
      from = done;
    }
    add_rest(all, done, text.size());
    return all;
  }

 private:
  std::optional<Regex::Match> next(std::string_view text, std::size_t from, RegexSteps& steps) const try {
    return regex_.search(text, from, steps);
  } catch (const RegexError& error) {
    throw InputError(location_ + ": the regular expression " + error.what());
  }
  Regex regex_;
  std::string location_;
};

/// Appends each match to the span before it in the list, unless that is a match: "a--" gives "a-", "-".
std::vector<Span> merge_matches(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& span : spans) {
    if (span.match && !previous && !out.empty()) {
      out.back().begin = std::min(out.back().begin, span.begin);
      out.back().end = std::max(out.back().end, span.end);
    } else {
      out.push_back(span);
    }
    previous = span.match;
  }
  return out;
}

/// Where a pattern matched without width, there is nothing to tokenize.
std::vector<Span> without_empty(std::vector<Span> spans) {
  std::erase_if(spans, [](const Span& span) { return span.begin == span.end; });
  return spans;
}

std::vector<Span> merge_runs(const std::vector<Span>& spans) {
  std::vector<Span> out;
  for (const Span& span : spans) {
    if (!out.empty() && out.back().match == span.match)
      out.back().end = span.end;
    else
      out.push_back(span);
  }
  return out;
}

}  // namespace

std::shared_ptr<const Pattern> literal(std::string text) { return std::make_shared<Literal>(std::move(text)); }

std::shared_ptr<const Pattern> regex(const std::string& expression, const std::string& location) {
  return std::make_shared<Expression>(expression, location);
}

std::shared_ptr<const Pattern> characters(bool (*belongs)(char32_t)) { return std::make_shared<Characters>(belongs); }

std::shared_ptr<const Pattern> read_pattern(const JsonObjectReader& in) {
  const JsonObjectReader pattern = in.at("pattern");
  pattern.allow_only({"String", "Regex"});
  if (pattern.has("String")) {
    const std::string text = pattern.text("String");
    if (text.empty()) pattern.fail("'String' is empty");
    return literal(text);
  }
  const std::string expression = pattern.text("Regex");
  if (expression.size() > 10'000) pattern.fail("'Regex' is longer than 10000 bytes");
  return regex(expression, pattern.location());
}

Behavior read_behavior(const JsonObjectReader& in, const std::string& default_value) {
  const std::string name = in.text("behavior", default_value);
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  in.fail("behavior '" + printable(name) + "' is not implemented");
}

std::vector<Span> split(std::string_view text, const Pattern& pattern, Behavior behavior, bool invert) {
  std::vector<Span> spans = pattern.spans(text);
  if (invert)
    for (Span& span : spans) span.match = !span.match;
  switch (behavior) {
    case Behavior::isolated:
      break;
    case Behavior::removed:
      std::erase_if(spans, [](const Span& span) { return span.match; });
      break;
    case Behavior::contiguous:
      spans = merge_runs(spans);
      break;
    case Behavior::merged_with_previous:
      spans = merge_matches(spans);
      break;
    case Behavior::merged_with_next:
      std::reverse(spans.begin(), spans.end());
      spans = merge_matches(spans);
      std::reverse(spans.begin(), spans.end());
      break;
  }
  return without_empty(std::move(spans));
}

std::string replace(std::string_view text, const Pattern& pattern, const std::string& content, TextBudget& budget) {
  std::string out;
  out.reserve(text.size());
  for (const Span& span : pattern.spans(text)) {
    const std::string_view piece = span.match ? content : text.substr(span.begin, span.end - span.begin);
    budget.spend(piece.size());
    out += piece;
  }
  return out;
}

}  // namespace peft::text

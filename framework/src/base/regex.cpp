#include "base/regex.h"

#include <oniguruma.h>

#include <mutex>

#include "peft/error.h"

namespace peft {

namespace {

/// A match may begin at each byte, and each may take Oniguruma's ten million steps: together they may take these, and a
/// hundred for a byte.
constexpr unsigned long search_steps = 1'000'000;

using Limits = std::unique_ptr<OnigMatchParam, void (*)(OnigMatchParam*)>;
using Region = std::unique_ptr<OnigRegion, void (*)(OnigRegion*)>;

Region new_region() {
  return {onig_region_new(), [](OnigRegion* region) { onig_region_free(region, 1); }};
}

const OnigUChar* begin(std::string_view text) { return reinterpret_cast<const OnigUChar*>(text.data()); }
const OnigUChar* end(std::string_view text) { return begin(text) + text.size(); }

std::string message_of(int code, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = onig_error_code_to_str(text, code, info);
  return printable({reinterpret_cast<const char*>(text), static_cast<std::size_t>(n)});
}

/// False where there is no match.
bool matched(int code) {
  if (code < 0 && code != ONIG_MISMATCH) throw RegexError("gave up: " + message_of(code, nullptr));
  return code >= 0;
}

}  // namespace

struct Regex::Compiled {
  regex_t* regex = nullptr;
  unsigned long most_steps = 0;

  /// For one search: threads share the expression.
  Limits limits(std::string_view text) const {
    Limits made{onig_new_match_param(), onig_free_match_param};
    if (most_steps > 0) onig_set_retry_limit_in_match_of_match_param(made.get(), most_steps);
    onig_set_retry_limit_in_search_of_match_param(made.get(), search_steps + 100 * text.size());
    return made;
  }
};

Regex::Regex(const std::string& expression, Syntax syntax, unsigned long most_steps)
    : compiled_(std::make_unique<Compiled>()) {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
  });
  OnigErrorInfo info{};
  const int code =
      onig_new(&compiled_->regex, peft::begin(expression), peft::end(expression), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
               syntax == Syntax::python ? ONIG_SYNTAX_PYTHON : ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) throw RegexError("does not compile: " + message_of(code, &info));
  compiled_->most_steps = most_steps;
}

Regex::~Regex() { onig_free(compiled_->regex); }

std::optional<Regex::Match> Regex::search(std::string_view text, std::size_t from) const {
  const Limits limits = compiled_->limits(text);
  const Region region = new_region();
  const int code =
      onig_search_with_param(compiled_->regex, peft::begin(text), peft::end(text), peft::begin(text) + from,
                             peft::end(text), region.get(), ONIG_OPTION_NONE, limits.get());
  if (!matched(code)) return std::nullopt;
  return Match{static_cast<std::size_t>(region->beg[0]), static_cast<std::size_t>(region->end[0]), ""};
}

std::optional<Regex::Match> Regex::match(std::string_view text, const std::string& group) const {
  const Limits limits = compiled_->limits(text);
  const Region region = new_region();
  const int code = onig_match_with_param(compiled_->regex, peft::begin(text), peft::end(text), peft::begin(text),
                                         region.get(), ONIG_OPTION_NONE, limits.get());
  if (!matched(code)) return std::nullopt;
  Match found{0, static_cast<std::size_t>(region->end[0]), ""};
  const int index = onig_name_to_backref_number(compiled_->regex, peft::begin(group), peft::end(group), region.get());
  if (index < 0 || region->beg[index] < 0) return found;
  const auto first = static_cast<std::size_t>(region->beg[index]);
  found.group = text.substr(first, static_cast<std::size_t>(region->end[index]) - first);
  return found;
}

}  // namespace peft

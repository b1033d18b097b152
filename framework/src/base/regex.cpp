#include "base/regex.h"

#include <oniguruma.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <mutex>
#include <new>

#include "peft/base/error.h"

namespace peft {

namespace {

using Limits = std::unique_ptr<OnigMatchParam, void (*)(OnigMatchParam*)>;
using Region = std::unique_ptr<OnigRegion, void (*)(OnigRegion*)>;

Region new_region() {
  OnigRegion* created = onig_region_new();
  if (created == nullptr) throw std::bad_alloc();
  return {created, [](OnigRegion* region) { onig_region_free(region, 1); }};
}

const OnigUChar* begin(std::string_view text) { return reinterpret_cast<const OnigUChar*>(text.data()); }
const OnigUChar* end(std::string_view text) { return begin(text) + text.size(); }

std::string message_of(int code, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = onig_error_code_to_str(text, code, info);
  return printable({reinterpret_cast<const char*>(text), static_cast<std::size_t>(n)});
}

double thread_cpu_seconds() {
  timespec now{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// False if there is no match. Throws RegexError if the search was given up.
bool matched(int code) {
  if (code == ONIGERR_MEMORY) throw std::bad_alloc();
  if (code < 0 && code != ONIG_MISMATCH) throw RegexError("gave up: " + message_of(code, nullptr));
  return code >= 0;
}

}  // namespace

struct Regex::Compiled {
  regex_t* regex = nullptr;
  unsigned long max_steps = 0;

  /// Limits of one search to `steps` steps. Each search has its own, because threads share the compiled expression.
  Limits limits(unsigned long steps) const {
    Limits limits{onig_new_match_param(), onig_free_match_param};
    if (!limits) throw std::bad_alloc();
    if (max_steps > 0) onig_set_retry_limit_in_match_of_match_param(limits.get(), max_steps);
    onig_set_retry_limit_in_search_of_match_param(limits.get(), steps);
    return limits;
  }
};

Regex::Regex(const std::string& expression, Syntax syntax, unsigned long max_steps)
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
  if (code == ONIGERR_MEMORY) throw std::bad_alloc();
  if (code != ONIG_NORMAL) throw RegexError("does not compile: " + message_of(code, &info));
  compiled_->max_steps = max_steps;
}

Regex::~Regex() { onig_free(compiled_->regex); }

RegexSteps::RegexSteps(std::string_view text)
    : remaining_(1'000'000 + 100 * text.size()),
      max_seconds_(10 + 2e-5 * static_cast<double>(text.size())),
      start_(thread_cpu_seconds()) {}

unsigned long RegexSteps::take(unsigned long requested) {
  const bool late = ++searches_ % 64 == 0 && thread_cpu_seconds() - start_ > max_seconds_;
  if (remaining_ == 0 || late) throw RegexError(late ? "gave up: too much time" : "gave up: too many steps");
  const unsigned long taken = std::min(requested, remaining_);
  remaining_ -= taken;
  return taken;
}

std::optional<Regex::Match> Regex::search(std::string_view text, std::size_t from, RegexSteps& steps) const {
  const Region region = new_region();
  int code = ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER;
  // Oniguruma does not report how many steps a search took. The limit within which it succeeded is close enough.
  for (unsigned long limit = 64; code == ONIGERR_RETRY_LIMIT_IN_SEARCH_OVER; limit *= 4)
    code = onig_search_with_param(compiled_->regex, peft::begin(text), peft::end(text), peft::begin(text) + from,
                                  peft::end(text), region.get(), ONIG_OPTION_NONE,
                                  compiled_->limits(steps.take(limit)).get());
  if (!matched(code)) return std::nullopt;
  return Match{static_cast<std::size_t>(region->beg[0]), static_cast<std::size_t>(region->end[0]), ""};
}

std::optional<Regex::Match> Regex::match(std::string_view text, const std::string& group) const {
  const Limits limits = compiled_->limits(RegexSteps(text).take(ULONG_MAX));
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

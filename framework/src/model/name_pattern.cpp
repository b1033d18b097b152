#include "model/name_pattern.h"

#include <oniguruma.h>

#include <mutex>

#include "peft/error.h"

namespace peft {

namespace {

// Names are short: an honest pattern needs a few hundred steps.
constexpr unsigned long kMostSteps = 200'000;
constexpr std::size_t kLongestExpression = 10'000;

const OnigUChar* bytes(const std::string& text) { return reinterpret_cast<const OnigUChar*>(text.data()); }

std::string message_of(int code, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = onig_error_code_to_str(text, code, info);
  return printable({reinterpret_cast<const char*>(text), static_cast<std::size_t>(n)});
}

}  // namespace

struct NamePattern::Compiled {
  Compiled(const std::string& source, const std::string& expression_, const std::string& where_)
      : expression(expression_), where(where_) {
    static std::once_flag once;
    std::call_once(once, [] {
      OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
      onig_initialize(encodings, 1);
    });
    if (expression.size() > kLongestExpression) fail("is longer than " + std::to_string(kLongestExpression) + " bytes");
    OnigErrorInfo info{};
    const int code = onig_new(&regex, bytes(source), bytes(source) + source.size(), ONIG_OPTION_NONE,
                              ONIG_ENCODING_UTF8, ONIG_SYNTAX_PYTHON, &info);
    if (code != ONIG_NORMAL) fail("does not compile: " + message_of(code, &info));
    onig_set_retry_limit_in_match_of_match_param(limits.get(), kMostSteps);
  }
  ~Compiled() { onig_free(regex); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;

  [[noreturn]] void fail(const std::string& what) const {
    throw ConfigError(where + ": the regular expression '" + printable(expression) + "' " + what);
  }

  std::string expression, where;
  regex_t* regex = nullptr;
  std::unique_ptr<OnigMatchParam, void (*)(OnigMatchParam*)> limits{onig_new_match_param(), onig_free_match_param};
};

NamePattern::NamePattern(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;

NamePattern NamePattern::beginning(const std::string& expression, const std::string& where) {
  return NamePattern(std::make_unique<Compiled>(expression, expression, where));
}
NamePattern NamePattern::whole(const std::string& expression, const std::string& where) {
  return NamePattern(std::make_unique<Compiled>("(?:" + expression + ")\\Z", expression, where));
}
NamePattern NamePattern::end(const std::string& expression, const std::string& where) {
  return NamePattern(std::make_unique<Compiled>("(?:.*\\.)?(?:" + expression + ")\\Z", expression, where));
}

std::optional<std::string> NamePattern::match(const std::string& name) const {
  const std::unique_ptr<OnigRegion, void (*)(OnigRegion*)> region(onig_region_new(),
                                                                  [](OnigRegion* r) { onig_region_free(r, 1); });
  const int code = onig_match_with_param(compiled_->regex, bytes(name), bytes(name) + name.size(), bytes(name),
                                         region.get(), ONIG_OPTION_NONE, compiled_->limits.get());
  if (code == ONIG_MISMATCH) return std::nullopt;
  if (code < 0) compiled_->fail("gave up on '" + printable(name) + "': " + message_of(code, nullptr));
  const std::string group = "idx";
  const int index =
      onig_name_to_backref_number(compiled_->regex, bytes(group), bytes(group) + group.size(), region.get());
  if (index < 0 || region->beg[index] < 0) return "";
  const auto begin = static_cast<std::size_t>(region->beg[index]);
  return name.substr(begin, static_cast<std::size_t>(region->end[index]) - begin);
}

}  // namespace peft

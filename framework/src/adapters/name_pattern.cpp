#include "adapters/name_pattern.h"

#include "base/regex.h"
#include "peft/base/error.h"

namespace peft {

namespace {

// Names are short: a well-behaved pattern needs a few hundred steps.
constexpr unsigned long kMaxSteps = 200'000;
constexpr std::size_t kMaxExpressionBytes = 10'000;

}  // namespace

struct NamePattern::Compiled {
  Compiled(const std::string& source, const std::string& expression_, const std::string& where_)
      : expression(expression_), where(where_) {
    if (expression.size() > kMaxExpressionBytes)
      fail("is longer than " + std::to_string(kMaxExpressionBytes) + " bytes");
    try {
      regex.emplace(source, Regex::Syntax::python, kMaxSteps);
    } catch (const RegexError& error) {
      fail(error.what());
    }
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw ConfigError(where + ": the regular expression '" + printable(expression) + "' " + what);
  }

  std::string expression, where;
  std::optional<Regex> regex;
};

NamePattern::NamePattern(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
NamePattern::~NamePattern() = default;
NamePattern::NamePattern(NamePattern&&) noexcept = default;

NamePattern NamePattern::prefix(const std::string& expression, const std::string& where) {
  return NamePattern(std::make_unique<Compiled>(expression, expression, where));
}
NamePattern NamePattern::full(const std::string& expression, const std::string& where) {
  return NamePattern(std::make_unique<Compiled>("(?:" + expression + ")\\Z", expression, where));
}
NamePattern NamePattern::suffix(const std::string& expression, const std::string& where) {
  return NamePattern(std::make_unique<Compiled>("(?:.*\\.)?(?:" + expression + ")\\Z", expression, where));
}

std::optional<std::string> NamePattern::match(const std::string& name) const {
  try {
    const auto found = compiled_->regex->match(name, "idx");
    return found ? std::optional(found->group) : std::nullopt;
  } catch (const RegexError& error) {
    compiled_->fail(std::string(error.what()) + ", on '" + printable(name) + "'");
  }
}

}  // namespace peft

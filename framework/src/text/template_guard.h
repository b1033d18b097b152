#pragma once

#include <cstdint>
#include <string>

#include "jinja/parser.h"

namespace peft::text {

/// What one rendering may use up: a checkpoint's template is a program of a stranger.
struct TemplateBudget {
  int64_t steps = 0;  ///< loop iterations and macro calls
  int64_t depth = 0;  ///< macros within macros
};

/// Throws InputError for a template that the engine's recursive parser could not take.
void check_nesting(const jinja::lexer_result& tokens);
/// Makes every loop, macro and assignment of the program check the budget, which must outlive the program.
void guard(jinja::program& program, TemplateBudget& budget);
/// Gives the templates a range() that is not allowed to fill the memory.
void limit_range(jinja::context& context);

}  // namespace peft::text

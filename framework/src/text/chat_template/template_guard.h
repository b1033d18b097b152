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

/// One rendering of this thread, from before the first value is made until after the last one is let go. It counts what
/// the engine uses up, and destroys values that hold one another.
class Rendering {
 public:
  Rendering();
  Rendering(const Rendering&) = delete;
  Rendering& operator=(const Rendering&) = delete;
  ~Rendering();
};

/// Throws InputError for a template that the engine's recursive parser could not take.
void check_nesting(const jinja::lexer_result& tokens);
/// Makes every loop, macro and assignment of the program check the budget, which must outlive the program.
void guard(jinja::program& program, TemplateBudget& budget);
/// Gives the templates a range() that is not allowed to fill the memory.
void limit_range(jinja::context& context);
/// Makes it 26 July 2024, 00:00, on every day and in every time zone, so that the same data renders to the same text.
/// It is the date that Llama 3.2's template falls back to.
void fix_date(jinja::context& context);

}  // namespace peft::text

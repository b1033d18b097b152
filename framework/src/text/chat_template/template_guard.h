#pragma once

#include <cstdint>
#include <string>

#include "jinja/parser.h"

namespace peft::text {

/// Counters of one rendering, which the guards of a program check and update.
struct TemplateBudget {
  int64_t steps = 0;  ///< loop iterations and macro calls so far
  int64_t depth = 0;  ///< macro calls that are active
};

/// Scope of one rendering in this thread: construct it before the first value is made and destroy it after the last one
/// is released. Resets the meter, and destroys values that form reference cycles.
class RenderingScope {
 public:
  RenderingScope();
  RenderingScope(const RenderingScope&) = delete;
  RenderingScope& operator=(const RenderingScope&) = delete;
  ~RenderingScope();
};

/// Throws InputError for a template that would overflow the stack of the engine's recursive parser.
void check_nesting(const jinja::lexer_result& tokens);
/// Makes every loop, macro and assignment of the program check the budget, which must outlive the program.
void add_guards(jinja::program& program, TemplateBudget& budget);
/// Replaces range() by one that rejects arguments beyond a million.
void limit_range(jinja::context& context);
/// Sets the date to 26 July 2024, 00:00, in every time zone, so that the same data always renders to the same text.
/// Llama 3.2's template falls back to that date.
void fix_date(jinja::context& context);

}  // namespace peft::text

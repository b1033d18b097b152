#pragma once

#include <cstddef>

namespace peft::fuzz {

/// Call it before each input.
void begin_coverage();
/// Whether the input reached a branch that no earlier input reached.
bool is_new_coverage();
/// Branches reached so far.
std::size_t coverage();

}  // namespace peft::fuzz

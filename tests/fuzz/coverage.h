#pragma once

#include <cstddef>

namespace peft::fuzz {

/// Forgets what the last input reached.
void begin_coverage();
/// Whether the input reached a branch that none before it had.
bool is_new_coverage();
/// Branches reached so far.
std::size_t coverage();

}  // namespace peft::fuzz

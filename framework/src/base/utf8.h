#pragma once

#include <cstddef>
#include <string>

namespace peft::detail {

/// Length in bytes of the well-formed UTF-8 sequence at byte `i` (table 3-7 of the Unicode standard); 0 if there is
/// none.
std::size_t utf8_length(const std::string& text, std::size_t i);
bool is_utf8(const std::string& text);

}  // namespace peft::detail

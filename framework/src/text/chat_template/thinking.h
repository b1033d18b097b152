#pragma once

#include <string>
#include <string_view>

namespace peft::text {

/// Without the white space at its ends.
std::string trimmed(std::string_view text);

/// The thinking in an answer's content, without the tags around it and the white space at its ends: what comes before
/// "</think>" or "[/THINK]". "" if there is none.
std::string thinking_of(const std::string& content);

}  // namespace peft::text

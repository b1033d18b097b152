#pragma once

#include <string>

namespace peft::text {

/// The thinking in an answer's content, without the tags around it and the white space at its ends: what comes before
/// "</think>" or "[/THINK]". "" if there is none.
std::string thinking_of(const std::string& content);

}  // namespace peft::text

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/rendering.h"

namespace peft::data {

/// The thinking of the answers that are targets.
std::vector<std::string> thinking_of(const Record& record);
/// How many of them no target contains, because the chat template cuts them out.
int64_t num_cut(const std::vector<std::string>& thinking, const std::vector<RenderedExample>& rendered);

}  // namespace peft::data

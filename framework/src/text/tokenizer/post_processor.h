#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "text/json_fields.h"

namespace peft::text {

/// Puts the special tokens around the ids of one text.
using PostProcessor = std::function<std::vector<int64_t>(std::vector<int64_t>)>;

/// Throws InputError, with place, for a type or option that is not implemented.
PostProcessor read_post_processor(const Fields& in);

}  // namespace peft::text

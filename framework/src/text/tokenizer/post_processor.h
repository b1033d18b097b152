#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "files/json_object_reader.h"

namespace peft::text {

/// Adds special tokens before and after the ids of one text.
using PostProcessor = std::function<std::vector<int64_t>(std::vector<int64_t>)>;

/// Throws InputError, with the location, for a type or option that is not implemented.
PostProcessor read_post_processor(const JsonObjectReader& in);

}  // namespace peft::text

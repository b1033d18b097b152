#pragma once

#include <nlohmann/json_fwd.hpp>

#include "peft/architecture/config.h"
#include "peft/base/export.h"

namespace peft {

/// Everything except the weights that a decoder's computation depends on, as an object with the names of config.json.
PEFT_API nlohmann::ordered_json fields_of(const DecoderConfig& config);

}  // namespace peft

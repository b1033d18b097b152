#pragma once

#include <nlohmann/json_fwd.hpp>

#include "peft/architecture/config.h"
#include "peft/base/export.h"

namespace peft {

/// All that a decoder's computation depends on beside its weights, under the names of config.json, in one object.
PEFT_API nlohmann::ordered_json fields_of(const DecoderConfig& config);

}  // namespace peft

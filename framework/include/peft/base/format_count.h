#pragma once

#include <cstdint>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// Formats an integer with thousands separators: 1234567 as "1,234,567".
PEFT_API std::string format_count(int64_t value);

}  // namespace peft

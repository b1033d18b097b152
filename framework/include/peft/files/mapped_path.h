#pragma once

#include <string>

#include "peft/base/export.h"

namespace peft {

/// The path of the mapped file that contains `address`, as printable_path() shows it, or null. Async-signal-safe.
PEFT_API const char* mapped_path(const void* address);

/// The path of a mapped file that was written to since it was mapped; "" if there is none.
PEFT_API std::string modified_mapped_path();

}  // namespace peft

#pragma once

#include "peft/base/export.h"

namespace peft {

/// The path of the mapped file that contains `address`, as printable_path() shows it, or null. Async-signal-safe.
PEFT_API const char* mapped_path(const void* address);

}  // namespace peft

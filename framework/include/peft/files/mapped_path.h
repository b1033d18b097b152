#pragma once

#include "peft/base/export.h"

namespace peft {

/// The path, as `printable` shows it, of the mapped file that an address lies in, or null. May be called in a signal
/// handler.
PEFT_API const char* mapped_path(const void* address);

}  // namespace peft

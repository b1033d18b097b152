#pragma once

#include "peft/base/export.h"

namespace peft {

/// Installs the CPU allocator and starts libtorch's threads. Call it before the first tensor is created; further calls
/// do nothing. Throws std::system_error if the system has no threads left: OpenMP itself would end the process.
PEFT_API void initialize_libtorch();

}  // namespace peft

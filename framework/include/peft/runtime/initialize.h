#pragma once

#include "peft/base/export.h"

namespace peft {

/// Installs the CPU allocator and starts libtorch's threads: no more than the CPU quota of the process can keep busy,
/// unless OMP_NUM_THREADS or MKL_NUM_THREADS says otherwise. Call it before the first tensor is created; further calls
/// do nothing. Throws std::system_error if the system has no threads left: OpenMP itself would end the process.
PEFT_API void initialize_libtorch();

}  // namespace peft

#pragma once

#include "peft/export.h"
#include "peft/train.h"

namespace peft {

/// Throws ConfigError, before anything is trained, where a run with `resume` is shorter than what is done, or has
/// another length on which its rates so far depend.
PEFT_API void require_resumable(const Run& run);

}  // namespace peft

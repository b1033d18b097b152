#pragma once

#include "peft/base/export.h"
#include "peft/train/train.h"

namespace peft {

/// Throws ConfigError, before anything is trained, where a run with `resume` is shorter than what is done, or has
/// another length on which its rates so far depend.
PEFT_API void require_resumable(const TrainingSession& run);

}  // namespace peft

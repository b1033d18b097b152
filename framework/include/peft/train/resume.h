#pragma once

#include "peft/base/export.h"
#include "peft/train/train.h"

namespace peft {

/// Throws ConfigError, before any training, if a run with `resume` is shorter than its completed steps, or if its
/// learning rates so far depend on a length that has changed.
PEFT_API void require_resumable(const TrainingSession& run);

}  // namespace peft

#pragma once

#include "peft/train/precision.h"
#include "peft/train/scheduler.h"

namespace peft {

/// What plugins say of themselves. Throws PluginError, with the plugin's file, where one throws instead.
PEFT_API torch::Dtype base_dtype(const Precision& precision);
PEFT_API torch::Dtype adapter_dtype(const Precision& precision);
PEFT_API bool needs_evaluations(const Scheduler& scheduler);

}  // namespace peft

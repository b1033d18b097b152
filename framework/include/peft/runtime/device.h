#pragma once

#include <torch/types.h>

#include <string>

#include "peft/base/export.h"

namespace peft {

/// "auto": an accelerator if this libtorch has one, else the CPU. Throws ConfigError for what is not there.
PEFT_API torch::Device choose_device(const std::string& name);

}  // namespace peft

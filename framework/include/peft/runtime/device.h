#pragma once

#include <torch/types.h>

#include <string>

#include "peft/base/export.h"

namespace peft {

/// The device of that name, such as "cpu" or "cuda:1". "auto" is the accelerator if there is one, else the CPU. Throws
/// ConfigError if the device does not exist.
PEFT_API torch::Device choose_device(const std::string& name);

}  // namespace peft

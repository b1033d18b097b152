#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

/// The default generator's state of a device, and back.
Tensor random_state(torch::Device device);
void set_random_state(torch::Device device, const Tensor& state);

}  // namespace peft

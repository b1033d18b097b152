#pragma once

#include "peft/runtime/tensors.h"

namespace peft {

/// Gets and sets the state of a device's default random number generator.
Tensor random_state(torch::Device device);
void set_random_state(torch::Device device, const Tensor& state);

}  // namespace peft

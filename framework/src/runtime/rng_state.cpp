#include "runtime/rng_state.h"

#include <torch/types.h>

namespace peft {

Tensor random_state(torch::Device device) { return at::globalContext().defaultGenerator(device).get_state(); }

void set_random_state(torch::Device device, const Tensor& state) {
  at::Generator generator = at::globalContext().defaultGenerator(device);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state);
}

}  // namespace peft

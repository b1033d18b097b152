#pragma once

#include <vector>

#include "peft/train.h"

namespace peft {

/// Shows the optimizer the gradients of the batches' loss with labels that the model draws from its own distribution at
/// each supervised place (`supervised` in all), and drops them again. Nothing is shown where they overflow.
void show_sampled_gradients(Run& run, const std::vector<Batch>& batches, int64_t supervised);

}  // namespace peft

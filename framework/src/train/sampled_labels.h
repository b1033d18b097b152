#pragma once

#include <vector>

#include "peft/train/train.h"

namespace peft {

/// Shows the optimizer the gradients of the batches' loss with labels that the model draws from its own distribution at
/// each supervised place (`supervised` in all), and drops them again. Nothing is shown where they overflow.
void run_sampled_label_pass(TrainingSession& run, const std::vector<Batch>& batches, int64_t num_target_tokens);

}  // namespace peft

#pragma once

#include <vector>

#include "peft/train/train.h"

namespace peft {

/// Gives the optimizer the gradients of the batches' loss with labels that are sampled from the model's own
/// distribution, and clears them again. `totals`: of all batches. Where the loss or the gradients overflow, the
/// optimizer gets nothing. Throws ConfigError if the objective's loss is not a likelihood.
void run_sampled_label_pass(TrainingSession& run, const std::vector<Batch>& batches, const Totals& totals);

}  // namespace peft

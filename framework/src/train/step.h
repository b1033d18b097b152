#pragma once

#include <optional>
#include <string>
#include <vector>

#include "peft/adapters/training_hooks.h"
#include "peft/train/train.h"
#include "train/gradient_check.h"

namespace peft {

/// Why a step was not taken: what it computed is not finite.
struct NonFiniteValue {
  std::string what;                        ///< "the loss is nan"
  std::optional<std::size_t> micro_batch;  ///< the one at fault, where it is known
};

/// What came of one step.
struct StepResult {
  double loss = 0;          ///< mean over the step's supervised tokens
  double norm = 0;          ///< of the gradients, before clipping
  bool overflowed = false;  ///< the precision's scale was too large: not taken
  std::optional<NonFiniteValue> fault;
};

/// Forward, backward, clipping and the optimizer's step over micro-batches that are one step together; with a fault
/// nothing but gradients was has_adapter. Leaves no gradient.
StepResult take_step(TrainingSession& run, const std::vector<Tensor>& parameters, const std::vector<Batch>& batches,
                     int64_t num_target_tokens, const TrainStep& position, GradientCheck& gradient_check);

/// A number for a message; NaN without a sign, which would mean nothing.
std::string text_of(double value);

/// Names of those that hold NaN or infinity, or "".
std::string not_finite(const std::vector<ParamGroup>& groups);

}  // namespace peft

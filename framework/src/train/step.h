#pragma once

#include <optional>
#include <string>
#include <vector>

#include "peft/adapters/training_hooks.h"
#include "peft/train/train.h"
#include "train/gradient_check.h"

namespace peft {

/// Why a step was skipped: something that it computed is not finite.
struct NonFiniteValue {
  std::string what;                        ///< "the loss is nan"
  std::optional<std::size_t> micro_batch;  ///< the one that caused it, if that is known
};

struct StepResult {
  double loss = 0;          ///< of the step, as the objective defines it
  double norm = 0;          ///< of the gradients, before clipping
  bool overflowed = false;  ///< the precision's loss scale was too large: skipped
  std::optional<NonFiniteValue> fault;
};

/// Forward, backward, clipping and the optimizer's step, for the micro-batches of one step. `totals`: of all of them.
/// With a fault nothing but gradients has changed. Leaves no gradient.
StepResult take_step(TrainingSession& run, const std::vector<Tensor>& parameters, const std::vector<Batch>& batches,
                     const Totals& totals, const TrainStep& position, GradientCheck& gradient_check);

/// A number for a message; NaN without a sign.
std::string text_of(double value);

/// Names of the parameters with NaN or infinity, or "".
std::string not_finite(const std::vector<ParamGroup>& groups);

}  // namespace peft

#pragma once

#include <cstdint>
#include <string>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/models/causal_lm.h"
#include "peft/train/objective.h"
#include "peft/train/precision.h"

namespace peft {

/// Results of an evaluation of a data set.
struct Evaluation {
  double loss = 0;  ///< the first of the figures; lower is better
  Figures figures;
  /// A figure by its name. Throws std::out_of_range if the objective does not have it.
  PEFT_API double figure(const std::string& name) const;
};
/// Evaluates without gradients and dropout. Throws InputError if the data set has no targets.
PEFT_API Evaluation evaluate(CausalLm& model, Precision& precision, const Objective& objective, const Dataset& data,
                             int64_t batch_size);

}  // namespace peft

#pragma once

#include <cstdint>

#include "peft/adapters/calibration.h"
#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/train/objective.h"
#include "peft/train/options.h"
#include "peft/train/precision.h"

namespace peft {

/// The batches of the run's first epoch and their loss, for methods that compute initial values from data. All
/// arguments must outlive the result.
PEFT_API Calibration calibration(const CausalLm& model, Precision& precision, Objective& objective, const Dataset& data,
                                 const TrainingOptions& options, bool packing, int64_t max_length);

}  // namespace peft

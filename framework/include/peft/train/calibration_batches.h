#pragma once

#include <cstdint>

#include "peft/adapters/calibration.h"
#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/train/options.h"
#include "peft/train/precision.h"

namespace peft {

/// What a method may look at before it is attached: the batches of the run's first pass. All of it outlives the result.
PEFT_API Calibration calibration(const Model& model, Precision& precision, const Dataset& data,
                                 const TrainingOptions& options, bool packing, int64_t max_length);

}  // namespace peft

#pragma once

#include <string>

#include "peft/experiment/prepared_run.h"
#include "peft/train/train.h"

namespace peft {

/// README.md of a trained adapter, as model hubs show it.
std::string model_card(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result);

}  // namespace peft

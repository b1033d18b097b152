#pragma once

#include <string>

#include "experiment.h"

/// README.md of a trained adapter, as model hubs show it.
std::string model_card(const Experiment& experiment, const Workload& work, const peft::TrainingResult& result);

#pragma once
// Everything that a C++ program includes to run experiments. A plugin includes peft/plugin.h.

#include "peft/base/error.h"
#include "peft/experiment/experiment.h"
#include "peft/experiment/memory_check.h"
#include "peft/experiment/prepared_run.h"
#include "peft/experiment/run.h"
#include "peft/train/callbacks.h"

#pragma once
// Whether a run fits into the memory it may have: [memory] limit, or what the machine, the control group and ulimit
// leave.

#include <string>

#include "experiment.h"

/// Of a step or an evaluation, whichever needs more.
peft::MemoryEstimate expected_memory(const Experiment& experiment, const Workload& work, const LargestBatches& largest);

/// "base 513.0 MiB, adapter 90.0 KiB, …": the components of the sum.
std::string estimate_text(const peft::MemoryEstimate& estimate);

/// Bounds what may be taken until the run is known. Throws ResourceError where the limit does not even hold the
/// program.
void begin_limit(const peft::MemoryOptions& options);

/// Throws ResourceError where the run is expected to need more, with the sum and what would fit; else bounds what it
/// may take. The model is arranged.
void require_fit(const Experiment& experiment, const Workload& work, const LargestBatches& largest);

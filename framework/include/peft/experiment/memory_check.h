#pragma once
// Checks whether a run fits into the memory that it may use: [memory] limit, or what the machine, the control group and
// ulimit allow.

#include <string>

#include "peft/base/export.h"
#include "peft/experiment/prepared_run.h"
#include "peft/planning/memory_estimate.h"

namespace peft {

/// The estimate of a training step or an evaluation, whichever needs more.
PEFT_API MemoryEstimate expected_memory(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak);

/// The components as text: "base 513.0 MiB, adapter 90.0 KiB, …".
PEFT_API std::string describe_estimate(const MemoryEstimate& estimate);

/// Limits the CPU allocator to [memory] limit while the run is prepared. Throws ResourceError if the process already
/// uses more.
PEFT_API void apply_memory_limit(const MemoryOptions& options);

/// With the activation checkpointing that is set. Throws ResourceError, with the components and with changes that would
/// fit, if the run is expected to need more than it may use; otherwise limits the CPU allocator for the training.
PEFT_API void check_fits_in_memory(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak);

}  // namespace peft

#pragma once

#include "peft/base/export.h"
#include "peft/models/decoder.h"
#include "peft/options/options.h"
#include "peft/runtime/memory.h"
#include "peft/train/optimizer.h"

namespace peft {

/// Bytes that a training step is expected to need, or an evaluation that needs more, by component, before anything ran.
struct MemoryEstimate {
  ComponentBytes components{};
  uint64_t mapped = 0;  ///< of the base: pages of the file, which the system may drop and read again
  PEFT_API uint64_t total() const;
  /// On a CPU, what the process holds now besides: code, data, other pages of the model's file; and what the CPU
  /// allocator has taken so far.
  uint64_t program = 0, reserved = 0;
  /// The process at its highest: the sum and the program.
  PEFT_API uint64_t resident() const;
};

/// The most that any micro-batch of a run holds of each.
struct PeakBatch {
  int64_t tokens = 0, num_target_tokens = 0, examples = 0;
};
/// For such micro-batches, with the model's own checkpointing; `evaluated`: the largest batch of an evaluation between
/// steps. What adapters hold that are no low-rank update is measured by passes of few rows through one site of each
/// kind. Throws what a plugin throws in them.
PEFT_API MemoryEstimate estimate_memory(const Model& model, const Optimizer& optimizer, const PeakBatch& largest,
                                        const PeakBatch& evaluated = {});

/// The [memory] table.
struct MemoryOptions {
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::none;
  uint64_t budget = 0;  ///< bytes of the estimate's sum; 0: none
  uint64_t limit = 0;   ///< bytes of the process; 0: what there is
};
PEFT_API MemoryOptions read_memory_options(Options& in);

/// Sets the model's checkpointing: for every layer what the options say, or with a budget the least that keeps the
/// estimate within it, first the MLPs of some layers, then whole layers. Throws ResourceError where even that does not
/// fit, with the sum.
PEFT_API void choose_activation_checkpointing(Model& model, const Optimizer& optimizer, const PeakBatch& largest,
                                              const PeakBatch& evaluated, const MemoryOptions& options);

}  // namespace peft

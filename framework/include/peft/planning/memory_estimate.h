#pragma once

#include "peft/base/export.h"
#include "peft/models/causal_lm.h"
#include "peft/options/options.h"
#include "peft/runtime/memory.h"
#include "peft/train/optimizer.h"

namespace peft {

/// Bytes that a training step is expected to need, or an evaluation if that needs more, by component.
struct MemoryEstimate {
  ComponentBytes components{};
  uint64_t mapped = 0;  ///< pages of the base's file, which the system may evict and reload
  PEFT_API uint64_t total() const;
  /// On a CPU, the process's other memory (code, data, other pages of the model's file), and what the CPU allocator has
  /// reserved so far.
  uint64_t program = 0, reserved = 0;
  /// Peak of the process: the total and the program.
  PEFT_API uint64_t resident() const;
};

/// Maxima over the micro-batches of a run.
struct PeakBatch {
  int64_t tokens = 0, num_target_tokens = 0, examples = 0;
};
/// The estimate for micro-batches of that size, with the model's current checkpointing; `evaluated`: the largest batch
/// of an evaluation between steps. Activations of adapters that are not low-rank are measured by passes of a few rows
/// through one site of each kind. Throws what a plugin throws in them.
PEFT_API MemoryEstimate estimate_memory(const CausalLm& model, const Optimizer& optimizer, const PeakBatch& largest,
                                        const PeakBatch& evaluated = {});

/// The [memory] table.
struct MemoryOptions {
  ActivationCheckpointing activation_checkpointing = ActivationCheckpointing::none;
  uint64_t budget = 0;  ///< maximum of the estimate's total, in bytes; 0: no budget
  uint64_t limit = 0;   ///< maximum of the process, in bytes; 0: what is available
};
PEFT_API MemoryOptions read_memory_options(Options& in);

/// Sets the model's checkpointing: the options' setting for every layer, or with a budget the least that brings the
/// estimate within it: first the MLPs of some layers, then complete layers. Throws ResourceError with the estimate if
/// even that does not fit.
PEFT_API void choose_activation_checkpointing(CausalLm& model, const Optimizer& optimizer, const PeakBatch& largest,
                                              const PeakBatch& evaluated, const MemoryOptions& options);

}  // namespace peft

#pragma once

#include "peft/export.h"
#include "peft/memory.h"
#include "peft/model/decoder.h"
#include "peft/optimizer.h"

namespace peft {

/// Bytes that a training step is expected to need, by component, before anything ran.
struct MemoryEstimate {
  ComponentBytes components{};
  uint64_t mapped = 0;  ///< of the base: pages of the file, which the system may drop and read again
  PEFT_API uint64_t total() const;
};

/// For micro-batches of at most `tokens` tokens, of which `supervised` are.
PEFT_API MemoryEstimate estimate_memory(const Model& model, const Optimizer& optimizer, int64_t tokens,
                                        int64_t supervised);

}  // namespace peft

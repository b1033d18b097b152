#pragma once

#include "peft/runtime/memory.h"

namespace peft {

/// The phase that allocations without a scope and messages about missing memory go by.
void set_memory_phase(MemoryPhase phase);

MemoryStats cpu_memory_stats();
void reset_cpu_peak();

/// Counts the block of `data` as `component`, if it is the CPU allocator's.
void attribute_block(void* data, MemoryComponent component);
bool cpu_allocator_owns(const void* data);

}  // namespace peft

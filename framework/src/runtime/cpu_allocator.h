#pragma once

#include "peft/runtime/memory.h"

namespace peft {

/// Sets the phase, to which allocations without a MemoryScope are attributed and which out-of-memory errors report.
void set_memory_phase(MemoryPhase phase);

MemoryStats cpu_memory_stats();
void reset_cpu_peak();

/// Attributes the block of `data` to `component` if it belongs to the CPU allocator.
void attribute_block(void* data, MemoryComponent component);
bool cpu_allocator_owns(const void* data);

}  // namespace peft

#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Bytes, since the process began; peaks since the last `reset_peak`.
struct MemoryStats {
  uint64_t allocated = 0;  ///< live, as asked for
  uint64_t reserved = 0;   ///< taken from the system or the device, in use or cached
  uint64_t peak_allocated = 0;
  uint64_t peak_reserved = 0;
  uint64_t allocations = 0;  ///< number of allocations so far
};

/// What memory is for.
enum class MemoryComponent : uint8_t { other, base, adapter, gradients, optimizer, activations, logits };
inline constexpr size_t kMemoryComponents = 7;
PEFT_API const char* name(MemoryComponent component);
/// Live bytes by component.
using ComponentBytes = std::array<uint64_t, kMemoryComponents>;

/// What a run is doing.
enum class MemoryPhase : uint8_t { start, load, forward, backward, optimizer, evaluate, save };
inline constexpr size_t kMemoryPhases = 7;
PEFT_API const char* name(MemoryPhase phase);
/// The one that a MemoryMeter was told last.
PEFT_API MemoryPhase memory_phase();

/// Gives torch a CPU allocator that keeps what it once took from the system, so that a step faults no pages in;
/// makes malloc do likewise. To be called once, before the first tensor; further calls do nothing. When memory is
/// short it throws c10::OutOfMemoryError, which says the size and the phase.
PEFT_API void install_cpu_allocator();
PEFT_API bool cpu_allocator_installed();
/// Most bytes the CPU allocator may reserve, where there are so many; 0: no limit of its own.
PEFT_API void set_cpu_memory_limit(uint64_t bytes);

/// Bytes that the process may still take, and what bounds it most, for messages.
struct AvailableMemory {
  uint64_t bytes;
  const char* bound;  ///< "the machine", "the control group", "ulimit -v" or "the memory limit" of the line above
};
PEFT_API AvailableMemory available_memory();

/// Of the CPU allocator above (zeros without it), or of the device's own caching allocator.
PEFT_API MemoryStats memory_stats(torch::Device device);
PEFT_API void reset_peak(torch::Device device);
/// Live bytes of the CPU allocator by component, now or at the last peak.
PEFT_API ComponentBytes component_bytes();
PEFT_API ComponentBytes peak_component_bytes();

/// The process's resident set, now and at its highest.
PEFT_API uint64_t resident_bytes();
PEFT_API uint64_t peak_resident_bytes();

/// CPU allocations of this thread count as `component` while it lives. Where no scope is open they count as the
/// phase suggests: load → base, forward and backward → activations, optimizer → optimizer.
class PEFT_API MemoryScope {
 public:
  explicit MemoryScope(MemoryComponent component);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  std::optional<MemoryComponent> before_;
};

/// Counts storages that live already, such as fresh gradients, as `component` from now on. CPU only.
PEFT_API void attribute(const std::vector<Tensor>& tensors, MemoryComponent component);

/// Bytes of the tensors' storages, each storage once.
struct StorageBytes {
  uint64_t owned = 0;   ///< memory of the process or device
  uint64_t mapped = 0;  ///< pages of a file, shared with the page cache
};
PEFT_API StorageBytes storage_bytes(const std::vector<Tensor>& tensors);

/// Follows a run through its phases: `meter.phase(MemoryPhase::forward)` ends the phase before and begins this one.
class PEFT_API MemoryMeter {
 public:
  struct Peak {
    uint64_t allocated = 0;
    uint64_t reserved = 0;
    ComponentBytes components{};  ///< at the moment of `allocated`; zeros on a device
  };
  explicit MemoryMeter(torch::Device device);
  ~MemoryMeter();
  void phase(MemoryPhase next);
  /// Highest of each phase so far, the current one included.
  Peak peak(MemoryPhase phase) const;
  /// Highest of all phases.
  Peak peak() const;
  /// The most a step had on top of what was live when its forward pass began.
  uint64_t activations() const;

 private:
  void record() const;
  torch::Device device_;
  MemoryPhase current_ = MemoryPhase::start;
  uint64_t step_start_ = 0;
  mutable uint64_t activations_ = 0;
  mutable std::array<Peak, kMemoryPhases> peaks_{};
};

}  // namespace peft

#pragma once

#include <array>
#include <cstdint>
#include <optional>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Memory use in bytes. Peaks are since the last reset_peak().
struct MemoryStats {
  uint64_t allocated = 0;  ///< requested by live allocations
  uint64_t reserved = 0;   ///< held by the allocator, in use or cached
  uint64_t peak_allocated = 0;
  uint64_t peak_reserved = 0;
  uint64_t allocations = 0;  ///< number of allocations since the process started
};

/// What an allocation is used for.
enum class MemoryComponent : uint8_t { other, base, adapter, gradients, optimizer, activations, logits };
inline constexpr size_t kMemoryComponents = 7;
PEFT_API const char* name(MemoryComponent component);
/// Allocated bytes by component.
using ComponentBytes = std::array<uint64_t, kMemoryComponents>;

/// The phase of a run.
enum class MemoryPhase : uint8_t { start, load, forward, backward, optimizer, evaluate, save };
inline constexpr size_t kMemoryPhases = 7;
PEFT_API const char* name(MemoryPhase phase);
/// The phase last set by MemoryMeter::phase().
PEFT_API MemoryPhase memory_phase();

/// Installs a caching CPU allocator for torch, and configures malloc likewise. Neither returns memory to the system, so
/// that repeated steps cause no page faults. Call it before the first tensor is created; further calls do nothing. The
/// allocator throws c10::OutOfMemoryError, with the size and the phase, if memory is exhausted.
PEFT_API void install_cpu_allocator();
PEFT_API bool cpu_allocator_installed();
/// Limits the bytes that the CPU allocator reserves; 0 means no limit.
PEFT_API void set_cpu_memory_limit(uint64_t bytes);

/// Memory that the process can still allocate, and the tightest limit, for messages.
struct AvailableMemory {
  uint64_t bytes;
  const char* bound;  ///< "the machine", "the control group", "ulimit -v" or "the memory limit" (set_cpu_memory_limit)
};
PEFT_API AvailableMemory available_memory();

/// Memory use of the CPU allocator (zeros if it is not installed) or of the device's caching allocator.
PEFT_API MemoryStats memory_stats(torch::Device device);
PEFT_API void reset_peak(torch::Device device);
/// Allocated bytes of the CPU allocator by component, now and at the last peak.
PEFT_API ComponentBytes component_bytes();
PEFT_API ComponentBytes peak_component_bytes();

/// Resident set size of the process, now and at its peak.
PEFT_API uint64_t resident_bytes();
PEFT_API uint64_t peak_resident_bytes();

/// Attributes CPU allocations of this thread to `component` during its lifetime. Without a scope the phase determines
/// the component: load → base; forward, backward and evaluate → activations; optimizer → optimizer.
class PEFT_API MemoryScope {
 public:
  explicit MemoryScope(MemoryComponent component);
  ~MemoryScope();
  MemoryScope(const MemoryScope&) = delete;
  MemoryScope& operator=(const MemoryScope&) = delete;

 private:
  std::optional<MemoryComponent> before_;
};

/// Attributes existing storages, such as new gradients, to `component`. CPU only.
PEFT_API void attribute(const std::vector<Tensor>& tensors, MemoryComponent component);

/// Size of the tensors' storages. Tensors that share a storage count once.
struct StorageBytes {
  uint64_t owned = 0;   ///< allocated by the process or device
  uint64_t mapped = 0;  ///< pages of a mapped file, shared with the page cache
};
PEFT_API StorageBytes storage_bytes(const std::vector<Tensor>& tensors);

/// Measures the peak memory use of each phase of a run. One at a time.
class PEFT_API MemoryMeter {
 public:
  struct Peak {
    uint64_t allocated = 0;
    uint64_t reserved = 0;
    ComponentBytes components{};  ///< when `allocated` was reached; zeros on a device
  };
  explicit MemoryMeter(torch::Device device);
  ~MemoryMeter();
  /// Ends the current phase and starts the next one.
  void phase(MemoryPhase next);
  /// Peak of a phase so far, including the current one.
  Peak peak(MemoryPhase phase) const;
  /// Peak of all phases.
  Peak peak() const;
  /// Largest increase during a step over the bytes allocated at the start of its forward pass.
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

#include "runtime/cpu_allocator.h"

#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/alloc_cpu.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "base/control_group.h"
#include "runtime/heap.h"

namespace peft {

namespace {

std::atomic<MemoryPhase> current_phase{MemoryPhase::start};
thread_local std::optional<MemoryComponent> open_scope;

MemoryComponent component_of_phase(MemoryPhase phase) {
  switch (phase) {
    case MemoryPhase::load:
      return MemoryComponent::base;
    case MemoryPhase::forward:
    case MemoryPhase::backward:
    case MemoryPhase::evaluate:
      return MemoryComponent::activations;
    case MemoryPhase::optimizer:
      return MemoryComponent::optimizer;
    default:
      return MemoryComponent::other;
  }
}

/// `ulimit -v` (RLIMIT_AS) or `ulimit -d` (RLIMIT_DATA) in bytes; UINT64_MAX if unlimited.
uint64_t limit_of(decltype(RLIMIT_AS) resource) {
  rlimit limit{};
  const bool limited = ::getrlimit(resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
  return limited ? limit.rlim_cur : UINT64_MAX;
}

/// Memory that the machine has available without swapping, by the estimates of the kernel and the control groups.
AvailableMemory machine_available() {
  static const ControlGroups groups;
  const uint64_t bytes = (read_number("/proc/meminfo", "MemAvailable:") + read_number("/proc/meminfo", "SwapFree:"))
                         << 10;
  const AvailableMemory machine{bytes == 0 ? UINT64_MAX : bytes, "the machine"};
  const uint64_t group = groups.available();
  return group < machine.bytes ? AvailableMemory{group, "the control group"} : machine;
}

uint64_t status_bytes(const char* key) { return read_number("/proc/self/status", key) << 10; }

/// Resident memory of this process that is not backed by files.
uint64_t anonymous_bytes() {
  const uint64_t bytes = status_bytes("RssAnon:");
  return bytes != 0 ? bytes : status_bytes("VmRSS:");
}

class CachingCpuAllocator final : public c10::Allocator {
 public:
  // If the address space is limited, it is reserved in small steps: mapped files, threads and malloc need some, too.
  CachingCpuAllocator()
      : small_(is_address_space_limited() ? kStep : size_t{1} << 30, false),
        large_(is_address_space_limited() ? kStep : 2 * physical_bytes(), true),
        initial_anonymous_(anonymous_bytes()) {}

  c10::DataPtr allocate(size_t bytes) override {
    void* data = bytes == 0 ? nullptr : take(bytes);
    return {data, data, &CachingCpuAllocator::release, c10::Device(c10::DeviceType::CPU)};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &CachingCpuAllocator::release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }

  void give_back(void* data);
  void attribute(void* data, MemoryComponent component);
  bool owns(const void* data) {
    const std::lock_guard lock(mutex_);
    return small_.owns(data) || large_.owns(data);
  }
  MemoryStats stats() {
    const std::lock_guard lock(mutex_);
    return stats_;
  }
  ComponentBytes components(bool at_peak) {
    const std::lock_guard lock(mutex_);
    return at_peak ? peak_components_ : components_;
  }
  void reset_peak() {
    const std::lock_guard lock(mutex_);
    stats_.peak_allocated = stats_.allocated;
    stats_.peak_reserved = stats_.reserved;
    peak_components_ = components_;
  }
  void set_limit(uint64_t bytes) {
    const std::lock_guard lock(mutex_);
    limit_ = bytes;
  }
  AvailableMemory available() {
    const std::lock_guard lock(mutex_);
    AvailableMemory tightest = system_available();
    const auto apply = [&](uint64_t limit, uint64_t used, const char* bound) {
      const uint64_t rest = limit - std::min(limit, used);
      if (rest < tightest.bytes) tightest = {rest, bound};
    };
    if (const uint64_t limit = limit_of(RLIMIT_AS); limit != UINT64_MAX)
      apply(limit, status_bytes("VmSize:"), "ulimit -v");
    if (limit_ != 0) apply(limit_, stats_.reserved, "the memory limit");
    return tightest;
  }
  static CachingCpuAllocator* instance;

 private:
  // Small blocks have their own heap, so that a long-lived one does not fragment the space of large blocks.
  static constexpr size_t kSmall = size_t{32} << 10;
  static constexpr size_t kStep = size_t{32} << 20;
  static bool is_address_space_limited() {
    return limit_of(RLIMIT_AS) != UINT64_MAX || limit_of(RLIMIT_DATA) != UINT64_MAX;
  }
  static size_t physical_bytes() {
    return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
  }
  static void release(void* data) { instance->give_back(data); }
  void* take(size_t bytes);
  /// Reserved memory counts as used even if its pages have not been touched. A margin remains for allocations that
  /// bypass this allocator (malloc, threads, matrix libraries, page tables): if the system runs out, it kills the
  /// process.
  AvailableMemory system_available() const {
    constexpr uint64_t margin = uint64_t{64} << 20;
    const uint64_t now = anonymous_bytes(), touched = now - std::min(now, initial_anonymous_);
    const uint64_t untouched = stats_.reserved - std::min(stats_.reserved, touched);
    AvailableMemory available = machine_available();
    available.bytes -= std::min(available.bytes, untouched + margin);
    return available;
  }
  bool grow(Heap& heap, size_t bytes);
  void count(size_t bytes, size_t component);

  std::mutex mutex_;
  Heap small_, large_;
  uint64_t limit_ = 0;
  uint64_t initial_anonymous_;  ///< anonymous memory of the process before the allocator was created
  MemoryStats stats_;
  ComponentBytes components_{}, peak_components_{};
};

CachingCpuAllocator* CachingCpuAllocator::instance = nullptr;

bool CachingCpuAllocator::grow(Heap& heap, size_t bytes) {
  const size_t more = heap.growth_for(bytes);
  if ((limit_ != 0 && stats_.reserved + more > limit_) || more > system_available().bytes) return false;
  if (!heap.grow(bytes)) return false;
  stats_.reserved = small_.reserved() + large_.reserved();
  stats_.peak_reserved = std::max(stats_.peak_reserved, stats_.reserved);
  return true;
}

void CachingCpuAllocator::count(size_t bytes, size_t component) {
  components_[component] += bytes;
  stats_.allocated += bytes;
  ++stats_.allocations;
  if (stats_.allocated > stats_.peak_allocated) {
    stats_.peak_allocated = stats_.allocated;
    peak_components_ = components_;
  }
}

void* CachingCpuAllocator::take(size_t bytes) {
  const MemoryPhase phase = current_phase.load(std::memory_order_relaxed);
  std::unique_lock lock(mutex_);
  const bool is_small = bytes <= kSmall;
  Heap& heap = is_small ? small_ : large_;
  // Sizes near 2^64 would wrap when rounded up.
  Heap::Block* block = bytes < (size_t{1} << 62) ? heap.take(bytes) : nullptr;
  if (!block && bytes < (size_t{1} << 62) && grow(heap, bytes)) block = heap.take(bytes);
  if (!block) {
    const MemoryStats now = stats_;
    lock.unlock();
    const AvailableMemory more = available();
    TORCH_CHECK_WITH(OutOfMemoryError, false, "out of memory on the CPU during ", name(phase), ": ", bytes,
                     " bytes requested, ", now.allocated, " bytes allocated, ", now.reserved, " bytes reserved; ",
                     more.bound, " allows ", more.bytes,
                     " more bytes. Use a smaller batch, shorter examples or a smaller dtype");
  }
  const size_t component = static_cast<size_t>(open_scope.value_or(component_of_phase(phase)));
  block->requested = bytes;
  block->tag = static_cast<uint8_t>(component);
  block->heap = is_small ? 0 : 1;
  count(bytes, component);
  return block->payload();
}

void CachingCpuAllocator::give_back(void* data) {
  if (!data) return;
  const std::lock_guard lock(mutex_);
  Heap::Block* block = Heap::Block::of(data);
  components_[block->tag] -= block->requested;
  stats_.allocated -= block->requested;
  (block->heap == 0 ? small_ : large_).give_back(block);
}

void CachingCpuAllocator::attribute(void* data, MemoryComponent component) {
  const std::lock_guard lock(mutex_);
  if (!small_.owns(data) && !large_.owns(data)) return;
  Heap::Block* block = Heap::Block::of(data);
  components_[block->tag] -= block->requested;
  block->tag = static_cast<uint8_t>(component);
  components_[block->tag] += block->requested;
}

}  // namespace

void install_cpu_allocator() {
  static std::once_flag once;
  std::call_once(once, [] {
    // The matrix libraries get scratch memory from malloc, which must not return it to the system, either. Some
    // versions of malloc accept thresholds only up to 32 MiB (half of the size of their heaps).
    constexpr int kThreshold = 1 << 30, kPortableThreshold = 32 << 20;
    if (!mallopt(M_MMAP_THRESHOLD, kThreshold)) mallopt(M_MMAP_THRESHOLD, kPortableThreshold);
    mallopt(M_TRIM_THRESHOLD, kThreshold);
    mallopt(M_TOP_PAD, 16 << 20);
    // Never destroyed, because tensors in static objects can be freed after any static destructor.
    CachingCpuAllocator::instance = new CachingCpuAllocator;
    c10::SetCPUAllocator(CachingCpuAllocator::instance, /*priority=*/100);
  });
}

bool cpu_allocator_installed() { return CachingCpuAllocator::instance != nullptr; }

void set_cpu_memory_limit(uint64_t bytes) {
  if (cpu_allocator_installed()) CachingCpuAllocator::instance->set_limit(bytes);
}

AvailableMemory available_memory() {
  return cpu_allocator_installed() ? CachingCpuAllocator::instance->available() : machine_available();
}

void set_memory_phase(MemoryPhase phase) { current_phase = phase; }

MemoryPhase memory_phase() { return current_phase; }

MemoryStats cpu_memory_stats() {
  return cpu_allocator_installed() ? CachingCpuAllocator::instance->stats() : MemoryStats{};
}

void reset_cpu_peak() {
  if (cpu_allocator_installed()) CachingCpuAllocator::instance->reset_peak();
}

ComponentBytes component_bytes() {
  return cpu_allocator_installed() ? CachingCpuAllocator::instance->components(false) : ComponentBytes{};
}

ComponentBytes peak_component_bytes() {
  return cpu_allocator_installed() ? CachingCpuAllocator::instance->components(true) : ComponentBytes{};
}

void attribute_block(void* data, MemoryComponent component) {
  if (cpu_allocator_installed() && data) CachingCpuAllocator::instance->attribute(data, component);
}

bool cpu_allocator_owns(const void* data) {
  return cpu_allocator_installed() && CachingCpuAllocator::instance->owns(data);
}

MemoryScope::MemoryScope(MemoryComponent component) : before_(open_scope) { open_scope = component; }

MemoryScope::~MemoryScope() { open_scope = before_; }

}  // namespace peft

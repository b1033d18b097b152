#include "peft/runtime/memory.h"

#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <exception>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

#include "base/control_group.h"
#include "runtime/cpu_allocator.h"

namespace peft {

namespace {

c10::DeviceAllocator* device_allocator(torch::Device device) {
  return dynamic_cast<c10::DeviceAllocator*>(c10::GetAllocator(device.type()));
}

c10::DeviceIndex index_of(torch::Device device) { return device.has_index() ? device.index() : c10::DeviceIndex{0}; }

/// Address ranges of this process that are mapped files, in ascending order.
std::vector<std::pair<uintptr_t, uintptr_t>> file_mappings() {
  std::vector<std::pair<uintptr_t, uintptr_t>> mappings;
  std::ifstream file("/proc/self/maps");
  for (std::string line; std::getline(file, line);) {
    std::istringstream in(line);
    uintptr_t begin = 0, end = 0;
    char dash = 0;
    std::string permissions, offset, device;
    uint64_t inode = 0;
    in >> std::hex >> begin >> dash >> end >> permissions >> offset >> device >> std::dec >> inode;
    if (in && inode != 0) mappings.emplace_back(begin, end);
  }
  return mappings;
}

}  // namespace

const char* name(MemoryComponent component) {
  constexpr std::array<const char*, kMemoryComponents> names = {"other",     "base",        "adapter", "gradients",
                                                                "optimizer", "activations", "logits"};
  return names.at(static_cast<size_t>(component));
}

const char* name(MemoryPhase phase) {
  constexpr std::array<const char*, kMemoryPhases> names = {"start",     "load",     "forward", "backward",
                                                            "optimizer", "evaluate", "save"};
  return names.at(static_cast<size_t>(phase));
}

MemoryStats memory_stats(torch::Device device) {
  if (device.is_cpu()) return cpu_memory_stats();
  c10::DeviceAllocator* allocator = device_allocator(device);
  if (!allocator || !allocator->initialized()) return {};
  const auto stats = allocator->getDeviceStats(index_of(device));
  const auto bytes = [](int64_t n) { return static_cast<uint64_t>(std::max<int64_t>(n, 0)); };
  const auto& allocated = stats.allocated_bytes[0];  // 0: sum of all pools
  const auto& reserved = stats.reserved_bytes[0];
  return {bytes(allocated.current), bytes(reserved.current), bytes(allocated.peak), bytes(reserved.peak),
          bytes(stats.allocation[0].allocated)};
}

void reset_peak(torch::Device device) {
  if (device.is_cpu()) return reset_cpu_peak();
  c10::DeviceAllocator* allocator = device_allocator(device);
  if (allocator && allocator->initialized()) allocator->resetPeakStats(index_of(device));
}

uint64_t resident_bytes() { return read_number("/proc/self/status", "VmRSS:") << 10; }

uint64_t peak_resident_bytes() { return read_number("/proc/self/status", "VmHWM:") << 10; }

void attribute(const std::vector<Tensor>& tensors, MemoryComponent component) {
  for (const Tensor& tensor : tensors) {
    if (tensor.defined() && tensor.device().is_cpu()) attribute_block(tensor.storage().mutable_data(), component);
  }
}

StorageBytes storage_bytes(const std::vector<Tensor>& tensors) {
  const auto mappings = file_mappings();
  std::set<const void*> seen;
  StorageBytes bytes;
  for (const Tensor& tensor : tensors) {
    if (!tensor.defined() || !seen.insert(tensor.storage().data()).second) continue;
    const auto begin = reinterpret_cast<uintptr_t>(tensor.storage().data());
    const bool mapped = tensor.device().is_cpu() && std::any_of(mappings.begin(), mappings.end(), [&](const auto& m) {
                          return begin >= m.first && begin < m.second;
                        });
    (mapped ? bytes.mapped : bytes.owned) += tensor.storage().nbytes();
  }
  return bytes;
}

MemoryMeter::MemoryMeter(torch::Device device) : device_(device) { reset_peak(device_); }

MemoryMeter::~MemoryMeter() {
  // If an exception is propagating, the phase is still needed for its message.
  if (std::uncaught_exceptions() == 0) set_memory_phase(MemoryPhase::start);
}

void MemoryMeter::record() const {
  const MemoryStats stats = memory_stats(device_);
  Peak& peak = peaks_[static_cast<size_t>(current_)];
  peak.reserved = std::max(peak.reserved, stats.peak_reserved);
  if (stats.peak_allocated > peak.allocated) {
    peak.allocated = stats.peak_allocated;
    if (device_.is_cpu()) peak.components = peak_component_bytes();
  }
  if (current_ == MemoryPhase::forward || current_ == MemoryPhase::backward) {
    activations_ = std::max(activations_, stats.peak_allocated - std::min(stats.peak_allocated, step_start_));
  }
}

void MemoryMeter::phase(MemoryPhase next) {
  record();
  reset_peak(device_);
  current_ = next;
  set_memory_phase(next);
  if (next == MemoryPhase::forward) step_start_ = memory_stats(device_).allocated;
}

MemoryMeter::Peak MemoryMeter::peak(MemoryPhase phase) const {
  record();
  return peaks_[static_cast<size_t>(phase)];
}

MemoryMeter::Peak MemoryMeter::peak() const {
  record();
  Peak highest = *std::max_element(peaks_.begin(), peaks_.end(),
                                   [](const Peak& a, const Peak& b) { return a.allocated < b.allocated; });
  for (const Peak& peak : peaks_) highest.reserved = std::max(highest.reserved, peak.reserved);
  return highest;
}

uint64_t MemoryMeter::activations() const {
  record();
  return activations_;
}

}  // namespace peft

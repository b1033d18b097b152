// Shows for the CPU allocator: its statistics are exact; freed memory is reused without growth or page faults; adjacent
// free blocks are merged; threads can share it; and a request that does not fit is an error with the size and the
// phase.
#include <torch/torch.h>

#include "peft/runtime/memory.h"
#include "support/test.h"

#include <c10/core/CPUAllocator.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif
#include <sys/resource.h>

#include <cstring>
#include <random>
#include <thread>

namespace {

using peft::MemoryComponent;
using peft::MemoryScope;

constexpr size_t kMiB = size_t{1} << 20;

c10::DataPtr take(size_t bytes) { return c10::GetCPUAllocator()->allocate(bytes); }
peft::MemoryStats stats() { return peft::memory_stats(torch::kCPU); }
uint64_t of(const peft::ComponentBytes& bytes, MemoryComponent component) {
  return bytes[static_cast<size_t>(component)];
}

struct Installed {
  Installed() { peft::install_cpu_allocator(); }
} const installed;

long minor_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt;
}

}  // namespace

TEST_CASE("statistics are exact to the byte") {
  peft::install_cpu_allocator();  // a second call does nothing
  REQUIRE(peft::cpu_allocator_installed());
  const auto start = stats();
  peft::reset_peak(torch::kCPU);
  {
    auto a = take(1000);
    auto b = take(3 * kMiB + 1);
    CHECK(stats().allocated == start.allocated + 1000 + 3 * kMiB + 1);
    CHECK(stats().allocations == start.allocations + 2);
    b.clear();
    CHECK(stats().allocated == start.allocated + 1000);
    CHECK(stats().peak_allocated == start.allocated + 1000 + 3 * kMiB + 1);
    CHECK(stats().reserved >= 3 * kMiB);
  }
  CHECK(stats().allocated == start.allocated);
  peft::reset_peak(torch::kCPU);
  CHECK(stats().peak_allocated == start.allocated);
  CHECK(stats().peak_reserved == stats().reserved);
  CHECK(take(0).get() == nullptr);
  CHECK(stats().allocated == start.allocated);
}

TEST_CASE("torch's tensors use the allocator, and blocks are aligned and writable") {
  const auto before = stats().allocated;
  const torch::Tensor t = torch::ones({123, 457});
  CHECK(stats().allocated == before + 123 * 457 * sizeof(float));
  CHECK(t.sum().item<double>() == 123 * 457);
  for (const size_t bytes : {1, 63, 64, 65, 4095, 32768, 32769, 1000003}) {
    auto block = take(bytes);
    CHECK(reinterpret_cast<uintptr_t>(block.get()) % 64 == 0);
    std::memset(block.get(), 0xff, bytes);
  }
}

TEST_CASE("adjacent blocks freed in any order are merged") {
  const std::vector<std::vector<int>> orders = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  for (const auto& order : orders) {
    std::vector<c10::DataPtr> blocks;
    {
      const auto warm = take(64 * kMiB);
    }
    const auto reserved = stats().reserved;
    // Three blocks that fill the space of the one above.
    for (int i = 0; i < 3; ++i) blocks.push_back(take(21 * kMiB));
    for (const int i : order) blocks[i].clear();
    const auto merged = take(64 * kMiB);
    CHECK(stats().reserved == reserved);
  }
}

TEST_CASE("repeated steps neither grow the heap nor cause page faults") {
  std::mt19937 random(7);
  std::vector<size_t> sizes;
  for (int i = 0; i < 200; ++i) sizes.push_back(random() % 100 < 50 ? random() % 4000 : random() % (2 * kMiB));
  std::vector<c10::DataPtr> live;
  live.reserve(sizes.size());
  const auto step = [&] {
    for (const size_t bytes : sizes) {
      live.push_back(take(bytes));
      for (size_t i = 0; i < bytes; i += 4096) static_cast<char*>(live.back().get())[i] = 1;
      if (live.size() % 3 == 0) live.erase(live.begin() + static_cast<long>(live.size() / 2));
    }
    live.clear();
  };
  step();
  const auto reserved = stats().reserved;
  for (int i = 0; i < 20; ++i) step();
  const long faults = minor_faults();
  for (int i = 0; i < 1000; ++i) step();
#ifndef __SANITIZE_ADDRESS__  // its shadow memory causes page faults, too
  CHECK(minor_faults() - faults < 20);
#else
  static_cast<void>(faults);
#endif
  CHECK(stats().reserved == reserved);
}

TEST_CASE("random allocations keep their contents and waste little memory") {
  std::mt19937 random(11);
  struct Live {
    c10::DataPtr data;
    size_t bytes;
    unsigned char mark;
  };
  std::vector<Live> live;
  const auto intact = [](const Live& block) {
    const auto* bytes = static_cast<const unsigned char*>(block.data.get());
    return bytes[0] == block.mark && bytes[block.bytes / 2] == block.mark && bytes[block.bytes - 1] == block.mark;
  };
  const auto before = stats();
  peft::reset_peak(torch::kCPU);
  uint64_t sum = 0;
  bool all_intact = true;
  for (int i = 0; i < 20000; ++i) {
    if (live.size() < 200 || random() % 2) {
      const size_t bytes = 1 + (random() % 4 ? random() % 2000 : random() % (kMiB / 2));
      live.push_back({take(bytes), bytes, static_cast<unsigned char>(random())});
      auto* begin = static_cast<unsigned char*>(live.back().data.get());
      begin[0] = begin[bytes / 2] = begin[bytes - 1] = live.back().mark;
      sum += bytes;
    } else {
      const size_t victim = random() % live.size();
      all_intact = all_intact && intact(live[victim]);
      sum -= live[victim].bytes;
      std::swap(live[victim], live.back());
      live.pop_back();
    }
  }
  for (const Live& block : live) all_intact = all_intact && intact(block);
  CHECK(all_intact);
  CHECK(stats().allocated == before.allocated + sum);
  // The heap grew by less than 1.3 times the peak.
  const auto grown = stats().reserved - before.reserved;
  CHECK(grown < 1.3 * static_cast<double>(stats().peak_allocated));
}

#ifdef __SANITIZE_ADDRESS__
TEST_CASE("AddressSanitizer reports accesses outside a block and to a freed block") {
  for (const size_t bytes : {size_t{100}, size_t{128}, 3 * kMiB}) {
    auto data = take(bytes);
    auto* const first = static_cast<char*>(data.get());
    CHECK(__asan_region_is_poisoned(first, bytes) == nullptr);
    CHECK(__asan_address_is_poisoned(first - 1));
    CHECK(__asan_address_is_poisoned(first + bytes));
    data.clear();
    CHECK(__asan_address_is_poisoned(first));
    CHECK(__asan_address_is_poisoned(first + bytes - 1));
  }
}
#endif

TEST_CASE("blocks can be allocated in one thread and freed in another") {
  const auto before = stats().allocated;
  std::vector<std::vector<c10::DataPtr>> handed(4);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(static_cast<unsigned>(t));
      for (int i = 0; i < 3000; ++i) {
        auto block = take(1 + random() % 60000);
        static_cast<char*>(block.get())[0] = 1;
        if (i % 10 == 0) handed[t].push_back(std::move(block));
      }
    });
  }
  for (auto& thread : threads) thread.join();
  CHECK(stats().allocated > before);
  std::thread([&] { handed.clear(); }).join();
  CHECK(stats().allocated == before);
}

TEST_CASE("bytes by component are exact, now and at the peak") {
  const auto component = [](MemoryComponent c) { return of(peft::component_bytes(), c); };
  const auto logits = component(MemoryComponent::logits), adapter = component(MemoryComponent::adapter);
  peft::reset_peak(torch::kCPU);
  torch::Tensor tensor;
  {
    const MemoryScope outer(MemoryComponent::adapter);
    tensor = torch::empty({1000});
    {
      const MemoryScope inner(MemoryComponent::logits);
      const auto large = torch::empty({5000});
      CHECK(component(MemoryComponent::logits) == logits + 20000);
    }
    const auto small = torch::empty({10});
    CHECK(component(MemoryComponent::adapter) == adapter + 4040);
  }
  CHECK(component(MemoryComponent::logits) == logits);
  CHECK(of(peft::peak_component_bytes(), MemoryComponent::logits) == logits + 20000);
  CHECK(of(peft::peak_component_bytes(), MemoryComponent::adapter) == adapter + 4000);
  const auto gradients = component(MemoryComponent::gradients);
  peft::attribute({tensor, torch::Tensor()}, MemoryComponent::gradients);
  CHECK(component(MemoryComponent::gradients) == gradients + 4000);
  CHECK(component(MemoryComponent::adapter) == adapter);
  tensor.reset();
  CHECK(component(MemoryComponent::gradients) == gradients);
}

TEST_CASE("a request that does not fit is refused with size and phase, and the allocator stays usable") {
  peft::MemoryMeter meter(torch::kCPU);
  meter.phase(peft::MemoryPhase::backward);
  peft::set_cpu_memory_limit(stats().reserved + 8 * kMiB);
  const auto before = stats().allocated;
  CHECK_THROWS_AS(take(size_t{1} << 40), c10::OutOfMemoryError);
  CHECK_THROWS_WITH(
      torch::empty({int64_t{1} << 40}),
      Catch::Matchers::StartsWith("out of memory on the CPU during backward: 4398046511104 bytes requested"));
  CHECK_THROWS_AS(take(SIZE_MAX - 5), c10::OutOfMemoryError);
  peft::set_cpu_memory_limit(0);
  CHECK_THROWS_AS(take(size_t{1} << 60), c10::OutOfMemoryError);  // more than any machine has
  CHECK(stats().allocated == before);
  CHECK(torch::ones({100}).sum().item<float>() == 100);
}

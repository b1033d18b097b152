// Shows for the memory meter: peaks are attributed to the phase in which they occurred; activations are counted from
// the start of the step; and storage_bytes() counts each storage once and distinguishes mapped files from memory.
#include <torch/torch.h>

#include "peft/runtime/memory.h"
#include "support/test.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>

using peft::MemoryComponent;
using peft::MemoryMeter;
using peft::MemoryPhase;

namespace {

uint64_t of(const peft::ComponentBytes& bytes, MemoryComponent component) {
  return bytes[static_cast<size_t>(component)];
}

}  // namespace

TEST_CASE("the peaks of a training step are attributed to its phases") {
  peft::install_cpu_allocator();
  MemoryMeter meter(torch::kCPU);
  meter.phase(MemoryPhase::load);
  const auto base_before = of(peft::component_bytes(), MemoryComponent::base);
  const auto weight = torch::ones({64, 64});
  CHECK(of(peft::component_bytes(), MemoryComponent::base) == base_before + 64 * 64 * 4);
  auto adapter = torch::ones({64, 64}, torch::requires_grad());
  const auto at_start = peft::memory_stats(torch::kCPU).allocated;

  meter.phase(MemoryPhase::forward);
  torch::Tensor loss;
  {
    const auto x = torch::ones({1000, 64});
    loss = torch::mm(torch::mm(x, weight), adapter).sum();
  }
  meter.phase(MemoryPhase::backward);
  loss.backward();
  loss.reset();
  peft::attribute({adapter.grad()}, MemoryComponent::gradients);
  meter.phase(MemoryPhase::optimizer);
  const auto moment = torch::zeros({64, 64});
  meter.phase(MemoryPhase::save);

  // x and the two products; the first product is saved for the backward pass.
  const uint64_t large = 1000 * 64 * 4;
  CHECK(meter.peak(MemoryPhase::forward).allocated >= at_start + 3 * large);
  CHECK(meter.peak(MemoryPhase::forward).allocated < at_start + 3 * large + 1000);
  CHECK(of(meter.peak(MemoryPhase::forward).components, MemoryComponent::activations) >= 3 * large);
  CHECK(meter.peak(MemoryPhase::backward).allocated >= at_start + large);
  CHECK(meter.peak(MemoryPhase::optimizer).allocated < at_start + large);
  CHECK(of(meter.peak(MemoryPhase::optimizer).components, MemoryComponent::optimizer) == 64 * 64 * 4);
  CHECK(of(meter.peak(MemoryPhase::optimizer).components, MemoryComponent::gradients) == 64 * 64 * 4);
  CHECK(meter.activations() >= 3 * large);
  CHECK(meter.activations() < 3 * large + 1000);
  CHECK(meter.peak().allocated == meter.peak(MemoryPhase::forward).allocated);
  CHECK(meter.peak().reserved >= meter.peak().allocated);
  CHECK(meter.peak(MemoryPhase::evaluate).allocated == 0);
}

TEST_CASE("each storage is counted once, and mapped files separately") {
  const auto t = torch::empty({100, 10});
  const auto other = torch::empty({7}, torch::kDouble);
  const auto bytes = peft::storage_bytes({t, t.t(), t.narrow(0, 0, 5), other, torch::Tensor()});
  CHECK(bytes.owned == 100 * 10 * 4 + 7 * 8);
  CHECK(bytes.mapped == 0);

  std::FILE* file = std::tmpfile();
  REQUIRE(file != nullptr);
  REQUIRE(ftruncate(fileno(file), 8192) == 0);
  void* page = mmap(nullptr, 8192, PROT_READ, MAP_PRIVATE, fileno(file), 0);
  REQUIRE(page != MAP_FAILED);
  const auto view = torch::from_blob(static_cast<char*>(page) + 4096, {512});
  CHECK(peft::storage_bytes({view, t}).mapped == 2048);
  CHECK(peft::storage_bytes({view, t}).owned == 4000);
  munmap(page, 8192);
  std::fclose(file);
}

TEST_CASE("the peak of the resident set size is at least its current value") {
  CHECK(peft::resident_bytes() > (uint64_t{1} << 20));
  CHECK(peft::peak_resident_bytes() >= peft::resident_bytes());
}

#include "peft/runtime/initialize.h"

#include <ATen/Parallel.h>

#include <latch>
#include <thread>
#include <vector>

#include "peft/runtime/memory.h"

namespace peft {

namespace {

/// Starts all threads at the same time, as OpenMP does: none ends before the last one has started.
void check_threads_can_start(int count) {
  std::latch all_started(1);
  std::vector<std::jthread> threads;
  try {
    for (int i = 0; i < count; ++i) threads.emplace_back([&] { all_started.wait(); });
  } catch (...) {
    all_started.count_down();
    throw;
  }
  all_started.count_down();
}

}  // namespace

void initialize_libtorch() {
  install_cpu_allocator();
  static bool threads_started = false;
  const int others = at::get_num_threads() - 1;
  if (threads_started || others < 1) return;
  check_threads_can_start(others);
  at::parallel_for(0, others + 1, 1, [](int64_t, int64_t) {});  // OpenMP keeps its threads from now on
  threads_started = true;
}

}  // namespace peft

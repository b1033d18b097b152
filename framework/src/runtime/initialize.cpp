#include "peft/runtime/initialize.h"

#include <ATen/Parallel.h>

#include <cstdlib>
#include <latch>
#include <thread>
#include <vector>

#include "peft/runtime/memory.h"
#include "runtime/threads.h"

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

/// OpenMP and MKL take the number of threads from the CPUs that the process may run on; of a quota they know nothing.
void keep_within_quota() {
  if (std::getenv("OMP_NUM_THREADS") != nullptr || std::getenv("MKL_NUM_THREADS") != nullptr) return;
  const int threads = at::get_num_threads(), within = threads_within(cpu_share().quota, threads);
  if (within < threads) at::set_num_threads(within);
}

void start_threads() {
  const int others = at::get_num_threads() - 1;
  if (others < 1) return;
  check_threads_can_start(others);
  at::parallel_for(0, others + 1, 1, [](int64_t, int64_t) {});  // OpenMP keeps its threads from now on
}

}  // namespace

void initialize_libtorch() {
  install_cpu_allocator();
  static bool initialized = false;
  if (initialized) return;
  keep_within_quota();
  start_threads();
  initialized = true;
}

}  // namespace peft

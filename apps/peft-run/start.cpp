#include "start.h"

#include <ATen/Parallel.h>

#include <latch>
#include <thread>
#include <vector>

#include "peft/runtime/memory.h"

void start_torch() {
  peft::install_cpu_allocator();
  const int others = at::get_num_threads() - 1;
  if (others < 1) return;
  {
    std::latch all(1);  // none ends before the last has begun
    std::vector<std::jthread> threads;
    try {
      for (int i = 0; i < others; ++i) threads.emplace_back([&] { all.wait(); });
    } catch (...) {
      all.count_down();
      throw;
    }
    all.count_down();
  }
  at::parallel_for(0, others + 1, 1, [](int64_t, int64_t) {});  // which keeps its own from now on
}

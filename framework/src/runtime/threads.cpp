#include "runtime/threads.h"

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/control_group.h"

namespace peft {

CpuShare cpu_share() {
  static const double quota = ControlGroups().cpu_quota();
  return {.cpus = ::omp_get_num_procs(), .quota = quota};
}

int threads_within(double quota, int threads) {
  // Rounded up: two threads use all of 1.5 CPUs, one would leave a third of them idle.
  return quota < threads ? std::max(1, static_cast<int>(std::ceil(quota))) : threads;
}

std::string describe_threads(int threads, const CpuShare& share) {
  std::string text = std::to_string(threads) + (threads == 1 ? " thread" : " threads");
  if (share.quota >= share.cpus)
    return text + " (of " + std::to_string(share.cpus) + (share.cpus == 1 ? " CPU)" : " CPUs)");
  char quota[32];
  std::snprintf(quota, sizeof(quota), "%.1f", share.quota);
  const bool within = threads_within(share.quota, threads) == threads;
  return text + (within ? ": the quota is " : ", although the quota is ") + quota + " CPUs";
}

}  // namespace peft

#pragma once

#include <string>

#include "peft/base/export.h"

namespace peft {

/// The processors that the system gives this process.
struct CpuShare {
  int cpus;      ///< CPUs that it may run on
  double quota;  ///< CPUs' worth of time that its control groups allow; infinity if they do not limit it
};
CpuShare cpu_share();

/// `threads`, or fewer if the quota cannot keep as many busy. At least 1.
PEFT_API int threads_within(double quota, int threads);

/// "2 threads (of 2 CPUs)"; if the quota is less, "1 thread: the quota is 1.0 CPUs".
PEFT_API std::string describe_threads(int threads, const CpuShare& share);

}  // namespace peft

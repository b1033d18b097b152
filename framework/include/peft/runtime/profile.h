#pragma once

#include <ATen/record_function.h>

#include <string>
#include <utility>
#include <vector>

#include "peft/base/export.h"

namespace peft {

/// Marks the rest of the block as one part of a step's work, for StepProfile and torch's own profilers: the name shows
/// in both. Costs nothing that can be measured where neither listens.
#define PEFT_PROFILE_SCOPE(name) RECORD_USER_SCOPE(name)

/// Seconds of each part that was marked while it lives, on the thread that made it; what runs inside an inner part
/// counts there alone. One at a time.
class PEFT_API StepProfile {
 public:
  StepProfile();
  ~StepProfile();
  StepProfile(const StepProfile&) = delete;
  StepProfile& operator=(const StepProfile&) = delete;
  /// By part, the longest first.
  std::vector<std::pair<std::string, double>> seconds() const;
  /// Forgets what was measured so far.
  void reset();

 private:
  at::CallbackHandle handle_;
};

}  // namespace peft

#pragma once

#include <ATen/record_function.h>

#include <string>
#include <utility>
#include <vector>

#include "peft/base/export.h"

namespace peft {

/// Attributes the rest of the enclosing block to `name` in StepProfile and in torch's profilers. The cost is not
/// measurable if neither is active.
#define PEFT_PROFILE_SCOPE(name) RECORD_USER_SCOPE(name)

/// Measures the seconds in each PEFT_PROFILE_SCOPE on the thread that created it, excluding nested scopes. One at a
/// time.
class PEFT_API StepProfile {
 public:
  StepProfile();
  ~StepProfile();
  StepProfile(const StepProfile&) = delete;
  StepProfile& operator=(const StepProfile&) = delete;
  /// Seconds by scope, in descending order.
  std::vector<std::pair<std::string, double>> seconds() const;
  /// Sets all times to zero.
  void reset();

 private:
  at::CallbackHandle handle_;
};

}  // namespace peft

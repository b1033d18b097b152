#pragma once

#include <cstdint>

#include "peft/export.h"

namespace peft {

/// The learning rate as a pure function of the step: a resumed run needs no state of it.
class PEFT_API Scheduler {
 public:
  virtual ~Scheduler();
  /// For optimizer step `step` (from 0) of `total_steps` (> 0); `base_lr` is the group's initial rate.
  virtual double lr(int64_t step, int64_t total_steps, double base_lr) const = 0;
};

}  // namespace peft

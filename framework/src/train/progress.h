#pragma once

#include <chrono>

#include "peft/train.h"

namespace peft {

/// The run's bookkeeping: means, rates, and what the observers are told.
class Progress {
 public:
  Progress(const Run& run, int64_t total_steps);
  void skip() { ++result_.skipped; }
  /// `report` holds step, epoch, loss, grad_norm, tokens and supervised; the rest is filled in.
  void step(StepReport report);
  void evaluated(int64_t step, double epoch, double loss);
  TrainingResult result() const;

 private:
  using Clock = std::chrono::steady_clock;
  const Run& run_;
  int64_t total_;
  Clock::time_point begin_, step_begin_, logged_;
  double loss_since_ = 0, loss_sum_ = 0;
  int64_t steps_since_ = 0, tokens_since_ = 0;
  TrainingResult result_;
};

}  // namespace peft

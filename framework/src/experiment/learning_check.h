#pragma once

#include <deque>
#include <string>

#include "peft/train/callbacks.h"

namespace peft {

/// Compares the loss at the end of a run with that of its first step, before which nothing was learned.
class LearningCheck : public TrainingCallback {
 public:
  void on_step_end(const StepReport& report, TrainingControl& control) override;
  /// "" unless the loss is clearly higher at the end.
  std::string warning() const;

 private:
  double first_ = 0;
  std::deque<double> last_;  ///< losses of at most kWindow steps
  int64_t steps_ = 0;
};

}  // namespace peft

#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// The learning rate as a function of the step and, for the few that ask for them, of the evaluations so far.
class PEFT_API Scheduler {
 public:
  virtual ~Scheduler();
  /// For optimizer step `step` (from 0) of `total_steps` (> 0); `base_lr` is the group's initial rate.
  virtual double lr(int64_t step, int64_t total_steps, double base_lr) const = 0;

  /// True: the rate follows the evaluations, and a run that has none before its end is refused.
  virtual bool needs_evaluations() const { return false; }
  /// The loop tells of each evaluation, in order: the mean loss over the held-out tokens.
  virtual void on_evaluation(double /*eval_loss*/) {}
  /// Everything a resumed run needs of what was observed. Default: nothing, and load() refuses anything.
  virtual std::map<std::string, double> state_dict() const { return {}; }
  virtual void load(const std::map<std::string, double>& state);
};

}  // namespace peft

#pragma once

#include <cstdint>

#include "peft/base/export.h"
#include "peft/plugin/stateful.h"

namespace peft {

/// The learning rate as a function of the step and, for some schedulers, of the evaluations so far. A plugin
/// overrides the protected do_… methods; one that depends on evaluations also stores what it observed as its state.
class PEFT_API Scheduler : public Stateful {
 public:
  ~Scheduler() override;
  /// The rate of optimizer step `step` (from 0) of `total_steps` (> 0); `base_lr` is the group's initial rate.
  double lr(int64_t step, int64_t total_steps, double base_lr) const;
  /// True: the rate depends on the evaluations. The run must have one before its end.
  bool needs_evaluations() const;
  /// Called after each evaluation, in order, with the mean loss of the held-out data.
  void on_evaluation(double eval_loss);

 protected:
  virtual double do_lr(int64_t step, int64_t total_steps, double base_lr) const = 0;
  virtual bool do_needs_evaluations() const { return false; }
  virtual void do_on_evaluation(double /*eval_loss*/) {}
};

}  // namespace peft

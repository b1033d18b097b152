#pragma once

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// The position in a run.
struct TrainStep {
  int64_t step = 0;  ///< optimizer step, from 1
  int64_t total_steps = 0;
};

/// The part of a method that takes part in training steps (Adapter::training_hooks).
class PEFT_API TrainingHooks {
 public:
  virtual ~TrainingHooks();
  /// A scalar that is added to each step's loss, such as AdaLoRA's orthogonality penalty; undefined: nothing.
  Tensor auxiliary_loss() const;
  /// Called when the step's gradients are complete and unscaled, before clipping.
  void after_backward(const TrainStep& step);
  /// Called after the optimizer's step, while the gradients exist. May change parameters.
  void after_step(const TrainStep& step);
  /// True if the steps so far would have been different in a run with another TrainStep::total_steps.
  bool depends_on_total_steps() const;

 protected:
  virtual Tensor do_auxiliary_loss() const;
  virtual void do_after_backward(const TrainStep& step);
  virtual void do_after_step(const TrainStep& step);
  virtual bool do_depends_on_total_steps() const;
};

}  // namespace peft

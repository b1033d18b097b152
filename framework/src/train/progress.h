#pragma once

#include <chrono>

#include "peft/train/train.h"

namespace peft {

/// The run's bookkeeping: means, rates, the best so far, and what the observers are told.
class Progress {
 public:
  Progress(const TrainingSession& run, int64_t total_steps);
  void skip() { ++result_.skipped; }
  /// Of a step that was not taken: `report` holds step, epoch, what, examples and tokens. What to say of it.
  std::string fault(NonFiniteStep report);
  /// `report` holds step, epoch, loss, grad_norm, tokens and supervised; the rest is filled in. `example` is one of the
  /// run's data that the step learned from.
  void step(StepReport report, std::size_t example);
  /// The example of the last step that was finite, in this process or before.
  std::optional<std::size_t> learned() const { return learned_; }
  void on_evaluate(int64_t step, double epoch, double loss);
  /// A snapshot is to be taken, behind the next step that is finite.
  void due() { due_ = true; }
  bool is_due() const { return due_; }
  /// The one that is due is being taken: the best of them may be this one, if it was just evaluated.
  void snapshot();
  TrainingResult result() const;
  /// A callback has asked to stop.
  bool should_stop() const { return control_.should_stop; }

  StateDict state_dict() const;
  /// Throws ConfigError where the run now has another length, and would have had other rates so far or ended here.
  void load_state_dict(const StateDict& state);

 private:
  using Clock = std::chrono::steady_clock;
  const TrainingSession& run_;
  int64_t total_;
  Clock::time_point begin_, step_begin_, logged_;
  double loss_since_ = 0, loss_sum_ = 0;
  int64_t steps_since_ = 0, tokens_since_ = 0;
  int64_t evaluated_at_ = 0;  ///< step of result_.eval_loss
  int64_t first_fault_ = 0;   ///< step
  std::optional<std::size_t> learned_;
  bool due_ = false;
  bool begun_ = false;  ///< a step was taken in this process
  TrainingResult result_;
  TrainingControl control_;
};

}  // namespace peft

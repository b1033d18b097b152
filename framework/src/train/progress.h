#pragma once

#include <chrono>

#include "peft/train/train.h"
#include "train/learning.h"

namespace peft {

/// The run's bookkeeping: means, throughput, the best snapshot so far, and the callbacks' reports.
class Progress {
 public:
  Progress(const TrainingSession& run, int64_t total_steps);
  void skip() { ++result_.skipped; }
  /// The optimizer took a step with gradients of this norm.
  void learn(double grad_norm) { learning_.step(grad_norm, run_.optimizer.groups()); }
  /// Of a skipped step: `report` has step, epoch, what, examples and tokens. Returns a description of it.
  std::string fault(NonFiniteStep report);
  /// `report` has step, epoch, loss, grad_norm, tokens and num_target_tokens; the rest is filled in. `example`: index
  /// of one of the step's examples.
  void step(StepReport report, std::size_t example);
  /// The example of the last finite step, also of an earlier process.
  std::optional<std::size_t> learned() const { return learned_; }
  void on_evaluate(int64_t step, double epoch, double loss);
  /// Requests a snapshot after the next finite step.
  void due() { due_ = true; }
  bool is_due() const { return due_; }
  /// The requested snapshot is being taken. It may be the best one, if it was just evaluated.
  void snapshot();
  TrainingResult result() const;
  /// With the values to save in the parameters.
  LearningResult learning() const { return learning_.result(); }
  /// A callback has asked to stop.
  bool should_stop() const { return control_.should_stop; }

  StateDict state_dict() const;
  /// Throws ConfigError if the run now has another length with which it would have had other learning rates so far, or
  /// would have ended here.
  void load_state_dict(const StateDict& state);

 private:
  using Clock = std::chrono::steady_clock;
  const TrainingSession& run_;
  int64_t total_;
  Clock::time_point begin_, step_begin_, logged_;
  double loss_since_ = 0, loss_sum_ = 0;
  int64_t steps_since_ = 0, tokens_since_ = 0;
  int64_t evaluated_at_ = 0;  ///< step of result_.eval_loss
  int64_t first_fault_ = 0;   ///< first non-finite step
  std::optional<std::size_t> learned_;
  Learning learning_;
  bool due_ = false;
  bool begun_ = false;  ///< a step was taken in this process
  TrainingResult result_;
  TrainingControl control_;
};

}  // namespace peft

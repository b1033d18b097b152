#pragma once

#include <string>

#include "peft/train/callbacks.h"

/// Shows a run: a progress bar on a terminal, elsewhere a line for each logged step. Warnings go to stderr.
class ConsoleReporter : public peft::TrainingCallback {
 public:
  ConsoleReporter();
  void on_run_begin(const peft::RunStart& start) override;
  void on_step_end(const peft::StepReport& report, peft::TrainingControl& control) override;
  void on_nonfinite_step(const peft::NonFiniteStep& report, peft::TrainingControl& control) override;
  void on_evaluate(const peft::EvalReport& report, peft::TrainingControl& control) override;
  void on_run_end(const peft::RunEnd& end) override;
  void on_message(peft::MessageLevel level, const std::string& text) override;
  /// Of a stopped run: folder of the checkpoint to resume from, printable.
  const std::string& checkpoint() const { return checkpoint_; }

 private:
  void end_bar();
  bool is_terminal_, bar_is_open_ = false;
  std::string checkpoint_;
};

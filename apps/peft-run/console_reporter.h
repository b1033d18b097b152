#pragma once

#include <string>

#include "peft/train/callbacks.h"

/// Shows a run: a line for each logged step and, on a terminal, a progress bar below it. Warnings go to stderr.
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
  /// Of a finished run: folders of the adapters, and whether they can be merged.
  const peft::StringList& adapters() const { return adapters_; }
  bool can_merge() const { return can_merge_; }

 private:
  void end_bar();
  bool is_terminal_, bar_is_open_ = false;
  bool can_merge_ = false;
  std::string checkpoint_;
  peft::StringList adapters_;
};

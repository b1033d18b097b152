#pragma once

#include "peft/train/callbacks.h"

/// Exit code of a run that was stopped by a signal and saved.
constexpr int stopped_by_signal = 75;

/// Handles SIGTERM and SIGINT, and unless they are ignored, as under nohup, SIGHUP, SIGUSR1, SIGUSR2 and SIGXCPU.
/// Before the run begins there is nothing to save: a signal ends the process at once, with exit code 75. Then the first
/// signal stops the run after its step; a second SIGTERM or SIGINT ends the process at once. This remains so until the
/// process ends, so that a finished run does not report failure.
class StopOnSignal : public peft::TrainingCallback {
 public:
  StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;
  const char* name() const;  ///< of the signal that was received first

  void on_run_begin(const peft::RunStart& start) override;
  void on_step_end(const peft::StepReport& report, peft::TrainingControl& control) override;
  void on_nonfinite_step(const peft::NonFiniteStep& report, peft::TrainingControl& control) override;
  void on_evaluate(const peft::EvalReport& report, peft::TrainingControl& control) override;
};

/// Whether a signal has asked the run to stop.
bool stop_requested();

#pragma once

#include <string>

#include "peft/train/train.h"

using peft::format_count;

std::string bytes_text(uint64_t bytes);  ///< 1.25 GiB
std::string time_text(double seconds);   ///< 1:02:03

/// A progress bar on a terminal, a plain line for each logged step elsewhere.
class Screen : public peft::TrainingCallback {
 public:
  Screen();
  void on_step_end(const peft::StepReport& report) override;
  void on_nonfinite_step(const peft::NonFiniteStep& report) override;
  void on_evaluate(const peft::EvalReport& report) override;
  /// Ends the bar's line.
  void close();

 private:
  bool terminal_, open_ = false;
};

#pragma once

#include <string>

#include "peft/train.h"

using peft::grouped;

std::string bytes_text(uint64_t bytes);  ///< 1.25 GiB
std::string time_text(double seconds);   ///< 1:02:03

/// A progress bar on a terminal, a plain line for each logged step elsewhere.
class Screen : public peft::Observer {
 public:
  Screen();
  void stepped(const peft::StepReport& report) override;
  void faulted(const peft::FaultReport& report) override;
  void evaluated(const peft::EvalReport& report) override;
  /// Ends the bar's line.
  void close();

 private:
  bool terminal_, open_ = false;
};

#pragma once

/// SIGTERM and SIGINT while a run lives. Before begin() there is nothing to lose: the process leaves at once, with exit
/// code 75. From then on the first one only asks the loop to stop after its step; a second one leaves at once.
/// It stays so until the process ends: a run that is done is not told to have failed.
class Signals {
 public:
  Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;
  void begin();
  bool asked() const;
  const char* name() const;  ///< of the signal that came
};

/// Exit code of a run that was stopped by a signal and saved.
constexpr int stopped_by_signal = 75;

#pragma once

#include <string>
#include <utility>
#include <vector>

#include "peft/train/callbacks.h"

namespace peft {

/// Sends what a run reports to its callbacks.
class Messages {
 public:
  explicit Messages(std::vector<TrainingCallback*> callbacks) : callbacks_(std::move(callbacks)) {}
  void info(const std::string& text) const { send(MessageLevel::info, text); }
  void warning(const std::string& text) const { send(MessageLevel::warning, text); }

 private:
  void send(MessageLevel level, const std::string& text) const {
    for (TrainingCallback* callback : callbacks_) callback->on_message(level, text);
  }
  std::vector<TrainingCallback*> callbacks_;
};

}  // namespace peft

#include "experiment/learning_check.h"

#include <algorithm>
#include <numeric>
#include <sstream>

namespace peft {

namespace {

constexpr std::size_t kWindow = 10;
// Steps differ in their examples, so that a loss may rise by chance.
constexpr double kMinRatio = 1.1, kMinRise = 0.5;

}  // namespace

void LearningCheck::on_step_end(const StepReport& report, TrainingControl&) {
  if (steps_++ == 0) first_ = report.loss;
  last_.push_back(report.loss);
  if (last_.size() > kWindow) last_.pop_front();
}

std::string LearningCheck::warning() const {
  if (steps_ < 4) return "";
  const std::size_t count = std::min(kWindow, static_cast<std::size_t>(steps_) / 2);
  const double end =
      std::accumulate(last_.end() - static_cast<std::ptrdiff_t>(count), last_.end(), 0.0) / static_cast<double>(count);
  std::ostringstream text;
  if (end > kMinRatio * first_ && end > first_ + kMinRise)
    text << "the loss rose from " << first_ << " in the first step to " << end
         << " in the last ones: unless the examples differ that much, the run has not learned; lower optimizer.lr";
  return text.str();
}

}  // namespace peft

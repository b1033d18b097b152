#include "train/progress.h"

#include <algorithm>

namespace peft {

Observer::~Observer() = default;

namespace {

double seconds(std::chrono::steady_clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

}  // namespace

Progress::Progress(const Run& run, int64_t total_steps)
    : run_(run), total_(total_steps), begin_(Clock::now()), step_begin_(begin_), logged_(begin_) {}

void Progress::step(StepReport report) {
  const Clock::time_point now = Clock::now();
  ++steps_since_;
  loss_since_ += report.loss;
  loss_sum_ += report.loss;
  tokens_since_ += report.tokens;
  result_.steps = report.step;
  result_.tokens += report.tokens;
  result_.epochs = report.epoch;

  report.total_steps = total_;
  report.mean_loss = loss_since_ / static_cast<double>(steps_since_);
  report.lr = run_.optimizer.groups().front().lr;
  report.seconds = seconds(now - step_begin_);
  if (report.step > 1) result_.seconds_after_first += report.seconds;
  report.tokens_per_second = static_cast<double>(tokens_since_) / std::max(seconds(now - logged_), 1e-9);
  report.seconds_left =
      seconds(now - begin_) / static_cast<double>(report.step) * static_cast<double>(total_ - report.step);
  report.memory = memory_stats(run_.model.device());
  const MemoryMeter::Peak peak = run_.memory.peak();  // the statistics' own begins anew with each phase
  report.memory.peak_allocated = peak.allocated;
  report.memory.peak_reserved = peak.reserved;
  report.skipped = result_.skipped;
  report.logged = report.step == 1 || report.step == total_ || report.step % run_.options.log_every == 0;
  for (Observer* observer : run_.observers) observer->stepped(report);
  if (report.logged) {
    loss_since_ = 0;
    steps_since_ = tokens_since_ = 0;
    logged_ = Clock::now();
  }
  step_begin_ = Clock::now();
}

void Progress::evaluated(int64_t step, double epoch, double loss) {
  result_.eval_loss = loss;
  const EvalReport report{.step = step, .epoch = epoch, .loss = loss, .seconds = seconds(Clock::now() - step_begin_)};
  for (Observer* observer : run_.observers) observer->evaluated(report);
  logged_ += Clock::now() - step_begin_;  // evaluation does not count as training time
  step_begin_ = Clock::now();
}

TrainingResult Progress::result() const {
  TrainingResult result = result_;
  result.loss = loss_sum_ / static_cast<double>(std::max<int64_t>(result.steps, 1));
  result.seconds = seconds(Clock::now() - begin_);
  return result;
}

}  // namespace peft

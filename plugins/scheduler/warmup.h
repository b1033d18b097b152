#pragma once

#include <peft/plugin.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>

/// The increase from 0 that any schedule may start with.
struct Warmup {
  int64_t steps = 0;
  double ratio = 0;

  /// warmup_steps, or warmup_ratio of all steps rounded up, as transformers' TrainingArguments does; at most all.
  int64_t of(int64_t total) const {
    const int64_t wanted = steps > 0 ? steps : static_cast<int64_t>(std::ceil(static_cast<double>(total) * ratio));
    return std::min(wanted, total);
  }
  /// The factor while step < of(total): step / of(total).
  static double factor(int64_t step, int64_t warmup) {
    return static_cast<double>(step) / static_cast<double>(std::max<int64_t>(1, warmup));
  }
};

inline Warmup read_warmup(peft::Options& in) {
  Warmup w;
  in.get("warmup_steps", w.steps, "steps during which the learning rate increases from 0")
      .require(w.steps >= 0, "must be 0 or more");
  in.get("warmup_ratio", w.ratio, "the same as a ratio of all steps")
      .require(w.ratio >= 0 && w.ratio <= 1, "must be between 0 and 1")
      .require(w.ratio == 0 || w.steps == 0, "cannot be given together with 'warmup_steps'");
  return w;
}

inline peft::OptionRule read_min_lr_ratio(peft::Options& in, double& ratio) {
  return in.get("min_lr_ratio", ratio, "final learning rate as a ratio of the initial one")
      .require(ratio >= 0 && ratio <= 1, "must be between 0 and 1");
}

/// Completed share of the steps after the warm-up, 0 to 1.
inline double progress(int64_t step, int64_t total, int64_t warmup) {
  return static_cast<double>(step - warmup) / static_cast<double>(std::max<int64_t>(1, total - warmup));
}

/// A schedule that increases from 0 to the full rate and then follows its own rule.
class WarmupScheduler : public peft::Scheduler {
 public:
  explicit WarmupScheduler(Warmup warmup) : warmup_(warmup) {}

 protected:
  double do_lr(int64_t step, int64_t total_steps, double base_lr) const final {
    const int64_t warmup = warmup_.of(total_steps);
    return step < warmup ? base_lr * Warmup::factor(step, warmup) : after(step, total_steps, warmup, base_lr);
  }

 private:
  /// The rate of step `step` >= `warmup`.
  virtual double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const = 0;
  Warmup warmup_;
};

// Linear decay to 0 or a ratio of the learning rate, as transformers' get_linear_schedule_with_warmup.
#include "../warmup.h"

namespace {

class Linear final : public WarmupScheduler {
 public:
  Linear(Warmup warmup, double min_lr_ratio) : WarmupScheduler(warmup), min_lr_ratio_(min_lr_ratio) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    const double left = std::max(0.0, 1 - progress(step, total_steps, warmup));
    return base_lr * (min_lr_ratio_ + (1 - min_lr_ratio_) * left);
  }
  double min_lr_ratio_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  double min_lr_ratio = 0;
  read_min_lr_ratio(in, min_lr_ratio);
  return std::make_unique<Linear>(warmup, min_lr_ratio);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("linear", make); }

}  // namespace

PEFT_PLUGIN("linear", "1.1.0", add)

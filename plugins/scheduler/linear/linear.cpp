// Falls in a straight line to 0, as transformers' get_linear_schedule_with_warmup.
#include "../warmup.h"

namespace {

class Linear final : public peft::Scheduler {
 public:
  explicit Linear(Warmup warmup) : warmup_(warmup) {}
  double lr(int64_t step, int64_t total_steps, double base_lr) const override {
    const int64_t warmup = warmup_.of(total_steps);
    if (step < warmup) return base_lr * Warmup::factor(step, warmup);
    return base_lr * std::max(0.0, 1 - progress(step, total_steps, warmup));
  }

 private:
  Warmup warmup_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) { return std::make_unique<Linear>(read_warmup(in)); }

void add(peft::Registry& registry) { registry.schedulers.add("linear", make); }

}  // namespace

PEFT_PLUGIN("linear", "1.0.0", add)

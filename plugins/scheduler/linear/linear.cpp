// Falls in a straight line to 0, as transformers' get_linear_schedule_with_warmup.
#include "../warmup.h"

namespace {

class Linear final : public WarmupScheduler {
 public:
  explicit Linear(Warmup warmup) : WarmupScheduler(warmup) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    return base_lr * std::max(0.0, 1 - progress(step, total_steps, warmup));
  }
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) { return std::make_unique<Linear>(read_warmup(in)); }

void add(peft::Registry& registry) { registry.schedulers.add("linear", make); }

}  // namespace

PEFT_PLUGIN("linear", "1.0.0", add)

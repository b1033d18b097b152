// Polynomial decay to lr_end, as transformers' get_polynomial_decay_schedule_with_warmup.
#include "../warmup.h"

namespace {

class Polynomial final : public WarmupScheduler {
 public:
  explicit Polynomial(Warmup warmup, double power, double lr_end)
      : WarmupScheduler(warmup), power_(power), lr_end_(lr_end) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    if (step > total_steps || lr_end_ >= base_lr) return std::min(base_lr, lr_end_);
    const double left = 1 - progress(step, total_steps, warmup);
    return (base_lr - lr_end_) * std::pow(left, power_) + lr_end_;
  }
  double power_, lr_end_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  double power = 1, lr_end = 1e-7;
  in.get("power", power, "power of the decay; 1 is linear")
      .require(std::isfinite(power) && power > 0, "must be positive");
  in.get("lr_end", lr_end, "final learning rate").require(std::isfinite(lr_end) && lr_end >= 0, "must be 0 or more");
  return std::make_unique<Polynomial>(warmup, power, lr_end);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("polynomial", make); }

}  // namespace

PEFT_PLUGIN("polynomial", "1.0.0", add)

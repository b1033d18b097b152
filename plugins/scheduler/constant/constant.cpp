// The same rate always, after the warm-up.
#include "../warmup.h"

namespace {

class Constant final : public peft::Scheduler {
 public:
  explicit Constant(Warmup warmup) : warmup_(warmup) {}
  double lr(int64_t step, int64_t total_steps, double base_lr) const override {
    const int64_t warmup = warmup_.of(total_steps);
    if (step < warmup) return base_lr * Warmup::factor(step, warmup);
    return base_lr;
  }

 private:
  Warmup warmup_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) { return std::make_unique<Constant>(read_warmup(in)); }

void add(peft::Registry& registry) { registry.schedulers.add("constant", make); }

}  // namespace

PEFT_PLUGIN("constant", "1.0.0", add)

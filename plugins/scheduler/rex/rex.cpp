// Decays along a reflected exponential (Chen, Wolfe, Kyrillidis 2021, arXiv 2107.04197).
#include "../warmup.h"

namespace {

class Rex final : public WarmupScheduler {
 public:
  Rex(Warmup warmup, double min_lr) : WarmupScheduler(warmup), min_lr_(min_lr) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    if (min_lr_ >= base_lr) return base_lr;
    const double done = std::min(1.0, progress(step, total_steps, warmup));
    return min_lr_ + (base_lr - min_lr_) * (1 - done) / (1 - done / 2);
  }
  double min_lr_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  double min_lr = 0;
  in.get("min_lr", min_lr, "final learning rate").require(std::isfinite(min_lr) && min_lr >= 0, "must be 0 or more");
  return std::make_unique<Rex>(warmup, min_lr);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("rex", make); }

}  // namespace

PEFT_PLUGIN("rex", "1.0.0", add)

// Falls along half a cosine to min_lr (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts).
#include "../warmup.h"

namespace {

class Cosine final : public WarmupScheduler {
 public:
  explicit Cosine(Warmup warmup, double min_lr) : WarmupScheduler(warmup), min_lr_(min_lr) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    const double fall = 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, progress(step, total_steps, warmup))));
    return min_lr_ < base_lr ? min_lr_ + (base_lr - min_lr_) * fall : base_lr;
  }
  double min_lr_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  double min_lr = 0;
  in.get("min_lr", min_lr, "rate at the end").require(std::isfinite(min_lr) && min_lr >= 0, "must be 0 or more");
  return std::make_unique<Cosine>(warmup, min_lr);
}

void add(peft::Registry& registry) { registry.schedulers.add("cosine", make); }

}  // namespace

PEFT_PLUGIN("cosine", "1.0.0", add)

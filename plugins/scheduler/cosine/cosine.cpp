// Decays along half a cosine to a minimum learning rate (Loshchilov & Hutter 2017, arXiv 1608.03983, without restarts).
#include "../warmup.h"

namespace {

struct CosineOptions {
  double min_lr = 0, min_lr_ratio = 0;
};

class Cosine final : public WarmupScheduler {
 public:
  Cosine(Warmup warmup, CosineOptions options) : WarmupScheduler(warmup), options_(options) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    const double fall = 0.5 * (1 + std::cos(std::numbers::pi * std::min(1.0, progress(step, total_steps, warmup))));
    const double least = std::max(options_.min_lr, options_.min_lr_ratio * base_lr);
    return least < base_lr ? least + (base_lr - least) * fall : base_lr;
  }
  CosineOptions options_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  CosineOptions o;
  in.get("min_lr", o.min_lr, "final learning rate")
      .require(std::isfinite(o.min_lr) && o.min_lr >= 0, "must be 0 or more");
  read_min_lr_ratio(in, o.min_lr_ratio)
      .require(o.min_lr_ratio == 0 || o.min_lr == 0, "cannot be given together with 'min_lr'");
  return std::make_unique<Cosine>(warmup, o);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("cosine", make); }

}  // namespace

PEFT_PLUGIN("cosine", "1.1.0", add)

// Half cosines to 0, repeated (Loshchilov & Hutter 2017, arXiv 1608.03983), as transformers'
// get_cosine_with_hard_restarts_schedule_with_warmup.
#include "../warmup.h"

namespace {

class CosineWithRestarts final : public WarmupScheduler {
 public:
  CosineWithRestarts(Warmup warmup, int64_t num_cycles) : WarmupScheduler(warmup), num_cycles_(num_cycles) {}

 private:
  double after(int64_t step, int64_t total_steps, int64_t warmup, double base_lr) const override {
    const double done = progress(step, total_steps, warmup);
    if (done >= 1) return 0;
    const double of_cycle = std::fmod(static_cast<double>(num_cycles_) * done, 1.0);
    return base_lr * 0.5 * (1 + std::cos(std::numbers::pi * of_cycle));
  }
  int64_t num_cycles_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  int64_t num_cycles = 1;
  in.get("num_cycles", num_cycles, "number of decays; each starts at the full learning rate")
      .require(num_cycles > 0, "must be positive");
  return std::make_unique<CosineWithRestarts>(warmup, num_cycles);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("cosine_with_restarts", make); }

}  // namespace

PEFT_PLUGIN("cosine_with_restarts", "1.0.0", add)

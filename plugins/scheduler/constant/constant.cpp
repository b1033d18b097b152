// A constant learning rate after the warm-up.
#include "../warmup.h"

namespace {

class Constant final : public WarmupScheduler {
 public:
  explicit Constant(Warmup warmup) : WarmupScheduler(warmup) {}

 private:
  double after(int64_t, int64_t, int64_t, double base_lr) const override { return base_lr; }
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) { return std::make_unique<Constant>(read_warmup(in)); }

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("constant", make); }

}  // namespace

PEFT_PLUGIN("constant", "1.0.0", add)

// Decays with the inverse square root of the step, as transformers' get_inverse_sqrt_schedule (Vaswani et al. 2017).
#include "../warmup.h"

namespace {

class InverseSqrt final : public WarmupScheduler {
 public:
  explicit InverseSqrt(Warmup warmup, int64_t timescale) : WarmupScheduler(warmup), timescale_(timescale) {}

 private:
  double after(int64_t step, int64_t, int64_t warmup, double base_lr) const override {
    const int64_t timescale = timescale_ > 0 ? timescale_ : warmup > 0 ? warmup : 10000;
    const auto shifted = static_cast<double>(step + timescale - warmup);
    return base_lr / std::sqrt(shifted / static_cast<double>(timescale));
  }
  int64_t timescale_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  const Warmup warmup = read_warmup(in);
  int64_t timescale = 0;
  in.get("timescale", timescale,
         "steps during which the learning rate decays to 1/sqrt(2); 0: the warm-up steps, or 10000 without a warm-up")
      .require(timescale >= 0 && timescale <= 1'000'000'000'000, "must be from 0 to 1e12");
  return std::make_unique<InverseSqrt>(warmup, timescale);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("inverse_sqrt", make); }

}  // namespace

PEFT_PLUGIN("inverse_sqrt", "1.0.0", add)

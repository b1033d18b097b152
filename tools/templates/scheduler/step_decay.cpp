// The learning rate decays in equal stages, each by `factor`.
#include <peft/plugin.h>

#include <cmath>

namespace {

class StepDecay final : public peft::Scheduler {
 public:
  StepDecay(int64_t count, double factor) : count_(count), factor_(factor) {}

 protected:
  double do_lr(int64_t step, int64_t total_steps, double base_lr) const override {
    const int64_t stage = step * count_ / total_steps;
    return base_lr * std::pow(factor_, static_cast<double>(stage));
  }

 private:
  int64_t count_;
  double factor_;
};

std::unique_ptr<peft::Scheduler> make(peft::Options& in) {
  int64_t count = 4;
  double factor = 0.5;
  in.get("count", count, "number of stages, of equally many steps").require(count > 0, "must be positive");
  in.get("factor", factor, "learning rate of a stage as a ratio of the one before")
      .require(factor > 0 && factor <= 1, "must be above 0 and at most 1");
  return std::make_unique<StepDecay>(count, factor);
}

void add(peft::Registry& registry) { registry.add<peft::Scheduler>("step_decay", make); }

}  // namespace

PEFT_PLUGIN("step_decay", "0.1.0", add)

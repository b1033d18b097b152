#include "peft/train/scheduler.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

Scheduler::~Scheduler() = default;

double Scheduler::lr(int64_t step, int64_t total_steps, double base_lr) const {
  return call_plugin(*this, "lr", [&] {
    const double rate = do_lr(step, total_steps, base_lr);
    if (!(rate >= 0 && std::isfinite(rate)))
      throw std::runtime_error("the learning rate of step " + std::to_string(step + 1) + " of " +
                               std::to_string(total_steps) + " is " + std::to_string(rate) +
                               "; it must be finite and not negative");
    return rate;
  });
}

bool Scheduler::needs_evaluations() const {
  return call_plugin(*this, "needs_evaluations", [&] { return do_needs_evaluations(); });
}

void Scheduler::on_evaluation(double eval_loss) {
  call_plugin(*this, "on_evaluation", [&] { do_on_evaluation(eval_loss); });
}

}  // namespace peft

#include "peft/train/scheduler.h"

#include <cmath>
#include <sstream>
#include <stdexcept>

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

Scheduler::~Scheduler() = default;

double Scheduler::lr(int64_t step, int64_t total_steps, double base_lr) const {
  return call_plugin(*this, "lr", [&] {
    const double rate = do_lr(step, total_steps, base_lr);
    if (std::isfinite(rate) && rate >= 0) return rate;
    std::ostringstream text;
    text << "the learning rate of step " << step + 1 << " of " << total_steps << " is " << rate
         << "; it must be finite and not negative";
    throw std::logic_error(text.str());
  });
}

bool Scheduler::needs_evaluations() const {
  return call_plugin(*this, "needs_evaluations", [&] { return do_needs_evaluations(); });
}

void Scheduler::on_evaluation(double eval_loss) {
  call_plugin(*this, "on_evaluation", [&] { do_on_evaluation(eval_loss); });
}

}  // namespace peft

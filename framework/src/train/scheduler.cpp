#include "peft/train/scheduler.h"

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

Scheduler::~Scheduler() = default;

double Scheduler::lr(int64_t step, int64_t total_steps, double base_lr) const {
  return call_plugin(*this, "lr", [&] { return do_lr(step, total_steps, base_lr); });
}

bool Scheduler::needs_evaluations() const {
  return call_plugin(*this, "needs_evaluations", [&] { return do_needs_evaluations(); });
}

void Scheduler::on_evaluation(double eval_loss) {
  call_plugin(*this, "on_evaluation", [&] { do_on_evaluation(eval_loss); });
}

}  // namespace peft

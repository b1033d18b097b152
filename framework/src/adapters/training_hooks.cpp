#include "peft/adapters/training_hooks.h"

#include <torch/types.h>

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

TrainingHooks::~TrainingHooks() = default;

Tensor TrainingHooks::auxiliary_loss() const {
  return call_plugin(*this, "auxiliary_loss", [&] { return do_auxiliary_loss(); });
}

void TrainingHooks::after_backward(const TrainStep& step) {
  call_plugin(*this, "after_backward", [&] { do_after_backward(step); });
}

void TrainingHooks::after_step(const TrainStep& step) {
  call_plugin(*this, "after_step", [&] { do_after_step(step); });
}

bool TrainingHooks::depends_on_total_steps() const {
  return call_plugin(*this, "depends_on_total_steps", [&] { return do_depends_on_total_steps(); });
}

Tensor TrainingHooks::do_auxiliary_loss() const { return {}; }
void TrainingHooks::do_after_backward(const TrainStep&) {}
void TrainingHooks::do_after_step(const TrainStep&) {}
bool TrainingHooks::do_depends_on_total_steps() const { return false; }

}  // namespace peft

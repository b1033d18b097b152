#include "train/step.h"

#include <torch/torch.h>

#include <cmath>

#include "peft/base/error.h"
#include "peft/runtime/profile.h"
#include "plugin/plugin_call.h"
#include "runtime/finite.h"
#include "train/in_precision.h"

namespace peft {

namespace {

using detail::call_plugin;

NonFiniteValue fault(const std::string& what, double value, std::optional<std::size_t> micro_batch) {
  return {"the " + what + " is " + text_of(value), micro_batch};
}

/// The method's own part of the loss, with its gradients.
double add_auxiliary(const Adapter& adapter, Precision& precision) {
  const Tensor extra = call_plugin(adapter, "auxiliary loss", [&] { return adapter.auxiliary_loss(); });
  if (!extra.defined()) return 0;
  const double value = extra.item<double>();
  if (std::isfinite(value)) backward_in(precision, extra);
  return value;
}

void add_gradients(TrainingSession& run, const std::vector<Tensor>& parameters, const std::vector<Batch>& batches,
                   int64_t num_target_tokens, StepResult& outcome) {
  for (std::size_t i = 0; i < batches.size(); ++i) {
    run.memory.phase(MemoryPhase::forward);
    const PackedTokens input = to_packed_tokens(batches[i], run.model.device());
    const Tensor labels = to_labels(batches[i], run.model.device());
    // Divided by the whole step's tokens, so that micro-batches add up to one large batch.
    const Tensor part = forward_in(
        run.precision, [&] { return run.model.loss_sum(input, labels) / static_cast<double>(num_target_tokens); });
    outcome.loss += part.item<double>();
    if (!std::isfinite(outcome.loss)) {
      outcome.fault = fault("loss", outcome.loss, i);
      return;
    }
    run.memory.phase(MemoryPhase::backward);
    backward_in(run.precision, part);
    attribute(gradients(parameters), MemoryComponent::gradients);
  }
  for (const Adapter* adapter : run.adapters) outcome.loss += add_auxiliary(*adapter, run.precision);
  if (!std::isfinite(outcome.loss)) outcome.fault = fault("loss with the adapter's own part", outcome.loss, {});
}

void use_gradients(TrainingSession& run, const std::vector<Tensor>& parameters, const TrainStep& position,
                   GradientCheck& gradient_check, StepResult& outcome) {
  run.memory.phase(MemoryPhase::optimizer);
  outcome.overflowed =
      !call_plugin(run.precision, "ready", [&] { return run.precision.unscale_gradients(parameters); });
  if (outcome.overflowed) return;
  PEFT_PROFILE_SCOPE("clipping and optimizer");
  for (Adapter* adapter : run.adapters)
    call_plugin(*adapter, "after_backward", [&] { adapter->after_backward(position); });
  outcome.norm = call_plugin(run.clipping, "clip", [&] { return run.clipping.clip(run.optimizer.groups()); });
  if (!std::isfinite(outcome.norm)) {
    outcome.fault = fault("gradient norm", outcome.norm, {});
    return;
  }
  if (gradient_check.open()) gradient_check.check();
  call_plugin(run.optimizer, "step", [&] { run.optimizer.step(); });
  for (Adapter* adapter : run.adapters) call_plugin(*adapter, "after_step", [&] { adapter->after_step(position); });
}

/// Also of a step that will not be taken: its log tells the rate.
void set_rates(TrainingSession& run, const TrainStep& position) {
  for (ParamGroup& group : run.optimizer.groups())
    group.lr = learning_rate(run.scheduler, position.step - 1, position.total, *group.initial_lr);
}

}  // namespace

StepResult take_step(TrainingSession& run, const std::vector<Tensor>& parameters, const std::vector<Batch>& batches,
                     int64_t num_target_tokens, const TrainStep& position, GradientCheck& gradient_check) {
  StepResult outcome;
  set_rates(run, position);
  add_gradients(run, parameters, batches, num_target_tokens, outcome);
  if (!outcome.fault) use_gradients(run, parameters, position, gradient_check, outcome);
  zero_grad(run.optimizer);
  return outcome;
}

double learning_rate(const Scheduler& scheduler, int64_t step, int64_t total_steps, double base_lr) {
  return call_plugin(scheduler, "lr", [&] { return scheduler.lr(step, total_steps, base_lr); });
}

void zero_grad(Optimizer& optimizer) {
  call_plugin(optimizer, "zero_grad", [&] { optimizer.zero_grad(); });
}

std::string text_of(double value) { return std::isnan(value) ? "nan" : std::to_string(value); }

std::string not_finite(const std::vector<ParamGroup>& groups) {
  std::string names;
  for (const ParamGroup& group : groups)
    for (const auto& [name, parameter] : group.parameters)
      if (!all_finite(parameter)) names += (names.empty() ? "'" : ", '") + printable(name) + "'";
  return names;
}

}  // namespace peft

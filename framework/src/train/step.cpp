#include "train/step.h"

#include <torch/types.h>

#include <cmath>

#include "peft/adapters/training_hooks.h"
#include "peft/base/error.h"
#include "peft/runtime/profile.h"
#include "plugin/plugin_call.h"
#include "runtime/finite.h"

namespace peft {

namespace {

NonFiniteValue fault(const std::string& what, double value, std::optional<std::size_t> micro_batch) {
  return {"the " + what + " is " + text_of(value), micro_batch};
}

/// Adds the gradients of a method's auxiliary loss and returns its value.
double add_auxiliary(const TrainingHooks& hooks, Precision& precision, const GradientCheck& gradient_check) {
  const Tensor extra = hooks.auxiliary_loss();
  if (!extra.defined()) return 0;
  if (gradient_check.open()) gradient_check.check_auxiliary_loss(hooks, extra);
  const double value = extra.item<double>();
  if (std::isfinite(value)) precision.backward(extra);
  return value;
}

void add_gradients(TrainingSession& run, const std::vector<Tensor>& parameters, const std::vector<Batch>& batches,
                   const Totals& totals, const GradientCheck& gradient_check, StepResult& outcome) {
  for (std::size_t i = 0; i < batches.size(); ++i) {
    run.memory.phase(MemoryPhase::forward);
    // The pass ends before the backward pass, which does not need what it holds.
    const Tensor micro_loss = run.precision.forward([&] {
      const Pass pass(run.model, batches[i]);
      Tensor loss = run.objective.loss(pass, totals);
      if (gradient_check.open()) gradient_check.check_loss(run.objective, pass, loss);
      return loss;
    });
    if (!micro_loss.requires_grad())
      detail::blame(run.precision, "forward", "the loss that it returns has no gradient");
    outcome.loss += micro_loss.item<double>();
    if (!std::isfinite(outcome.loss)) {
      outcome.fault = fault("loss", outcome.loss, i);
      return;
    }
    run.memory.phase(MemoryPhase::backward);
    run.precision.backward(micro_loss);
    attribute(gradients(parameters), MemoryComponent::gradients);
  }
  for (Adapter* adapter : run.adapters)
    if (const TrainingHooks* hooks = adapter->training_hooks())
      outcome.loss += add_auxiliary(*hooks, run.precision, gradient_check);
  if (!std::isfinite(outcome.loss)) outcome.fault = fault("loss with the adapter's auxiliary loss", outcome.loss, {});
}

/// `norm`: of the gradients before clipping.
void check_norm(const GradientClipping& clipping, double norm, double returned) {
  constexpr double tolerance = 1e-2;  // it may be summed in another order or dtype
  const bool same = std::isfinite(norm) ? std::abs(returned - norm) <= tolerance * norm : !std::isfinite(returned);
  if (!same)
    detail::blame(clipping, "clip",
                  "it returned " + text_of(returned) + ", but the norm of the gradients was " + text_of(norm));
}

void use_gradients(TrainingSession& run, const std::vector<Tensor>& parameters, const TrainStep& position,
                   GradientCheck& gradient_check, StepResult& outcome) {
  run.memory.phase(MemoryPhase::optimizer);
  outcome.overflowed = !run.precision.unscale_gradients(parameters);
  if (outcome.overflowed) return;
  PEFT_PROFILE_SCOPE("clipping and optimizer");
  for (Adapter* adapter : run.adapters)
    if (TrainingHooks* hooks = adapter->training_hooks()) hooks->after_backward(position);
  const std::optional<double> norm =
      gradient_check.open() ? std::optional(global_norm(gradients(parameters))) : std::nullopt;
  outcome.norm = run.clipping.clip(run.optimizer.groups());
  if (norm) check_norm(run.clipping, *norm, outcome.norm);
  if (!std::isfinite(outcome.norm)) {
    outcome.fault = fault("gradient norm", outcome.norm, {});
    return;
  }
  if (gradient_check.open()) gradient_check.check_gradients();
  run.optimizer.step();
  if (gradient_check.open()) gradient_check.check_step(run.optimizer);
  for (Adapter* adapter : run.adapters)
    if (TrainingHooks* hooks = adapter->training_hooks()) hooks->after_step(position);
}

/// Also called for a step that will be skipped, because its log line shows the learning rate.
void set_rates(TrainingSession& run, const TrainStep& position) {
  for (ParamGroup& group : run.optimizer.groups())
    group.lr = run.scheduler.lr(position.step - 1, position.total_steps, *group.initial_lr);
}

}  // namespace

StepResult take_step(TrainingSession& run, const std::vector<Tensor>& parameters, const std::vector<Batch>& batches,
                     const Totals& totals, const TrainStep& position, GradientCheck& gradient_check) {
  StepResult outcome;
  set_rates(run, position);
  add_gradients(run, parameters, batches, totals, gradient_check, outcome);
  if (!outcome.fault) use_gradients(run, parameters, position, gradient_check, outcome);
  run.optimizer.zero_grad();
  return outcome;
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

// The training loop, top to bottom. The functions that it calls are in the other files of this folder.
#include "peft/train/train.h"

#include <torch/types.h>

#include <chrono>
#include <cmath>
#include <limits>

#include "peft/base/error.h"
#include "peft/runtime/profile.h"
#include "peft/train/resume.h"
#include "runtime/finite.h"
#include "train/gradient_check.h"
#include "train/progress.h"
#include "train/sampled_labels.h"
#include "train/stateful.h"
#include "train/step.h"

namespace peft {

namespace {

constexpr const char* kAdvice = "; try a lower learning rate, gradient clipping or a wider precision";

struct StepTokens {
  int64_t tokens = 0, num_target_tokens = 0;
  Totals totals;
};

StepTokens count(const std::vector<Batch>& batches, int64_t step, const TrainingSession& run) {
  StepTokens sum;
  const bool has_virtual_tokens = run.model.virtual_tokens() > 0;
  for (const Batch& batch : batches) {
    sum.tokens += static_cast<int64_t>(batch.ids.size());
    sum.num_target_tokens += batch.num_target_tokens(has_virtual_tokens);
    add_totals(sum.totals, run.objective.totals(batch, has_virtual_tokens));
  }
  if (sum.totals.front() == 0)
    throw InputError("step " + std::to_string(step) + ": all labels are masked, there is nothing to learn from");
  return sum;
}

/// Everything that a resumed run restores, except the adapters, which have files of their own.
std::vector<StatefulComponent> components_of(TrainingSession& run, StepSampler& steps, Progress& progress) {
  return {component("progress", progress),       component("position", steps),
          component("optimizer", run.optimizer), component("scheduler", run.scheduler),
          component("clipping", run.clipping),   component("precision", run.precision),
          random_component(run.model.device()),  optional_component("objective", run.objective)};
}

/// Reports a skipped step. Throws DivergedError if there were too many, or if no further step can be finite.
void handle_nonfinite_step(TrainingSession& run, Progress& progress, const NonFiniteValue& fault,
                           const StepSampler::Step& plan, int64_t step, int64_t tokens) {
  NonFiniteStep report;
  report.step = step, report.epoch = plan.epoch, report.what = fault.what, report.tokens = tokens;
  for (std::size_t i = 0; i < plan.batches.size(); ++i)
    if (!fault.micro_batch || *fault.micro_batch == i)
      for (const std::size_t example : plan.batches[i])
        report.examples.push_back(run.data.source(run.data.examples[example]));
  const std::string text = progress.fault(report);
  if (const std::string names = not_finite(run.optimizer.groups()); !names.empty())
    throw DivergedError(text + "; earlier steps left NaN or infinity in " + names + kAdvice);
  if (progress.result().nonfinite > run.options.max_nonfinite_steps)
    throw DivergedError(text + "; training.max_nonfinite_steps is " + std::to_string(run.options.max_nonfinite_steps) +
                        kAdvice);
}

/// Names of the trained parameters and tensors of `state` that are not finite.
std::string nonfinite_tensors(const TrainingSession& run, const StateDict& state) {
  std::string names = not_finite(run.optimizer.groups());
  for (const auto& [name, tensor] : state)
    if (!all_finite(tensor)) names += (names.empty() ? "'" : ", '") + printable(name) + "'";
  return names;
}

/// Nothing that diverged is saved: throws DivergedError if a trained parameter or a tensor of `state` is not finite.
void require_finite(const TrainingSession& run, const StateDict& state, int64_t step) {
  if (const std::string names = nonfinite_tensors(run, state); !names.empty())
    throw DivergedError("step " + std::to_string(step) + " left NaN or infinity in " + names + kAdvice);
}

/// No later step shows whether the last one diverged, so an example of the last finite step must still have a finite
/// loss.
void check_final_step(TrainingSession& run, std::optional<std::size_t> learned, int64_t step) {
  require_finite(run, {}, step);
  if (!learned) return;
  Dataset example;
  example.examples.push_back(run.data.examples[*learned]);
  const double loss = evaluate(run.model, run.precision, run.objective, example, 1).loss;
  run.model.train();
  if (!std::isfinite(loss))
    throw DivergedError("after step " + std::to_string(step) + " the loss of " +
                        run.data.source(example.examples.front()) + " is " + text_of(loss) + kAdvice);
}

/// Says when save_every_minutes have passed since the last checkpoint.
class SaveTimer {
 public:
  explicit SaveTimer(const TrainingOptions& options)
      : interval_(options.save_every > 0 ? 0 : options.save_every_minutes), last_(Clock::now()) {}
  bool is_due() const { return interval_.count() > 0 && Clock::now() - last_ >= interval_; }
  void restart() { last_ = Clock::now(); }

 private:
  using Clock = std::chrono::steady_clock;
  std::chrono::duration<double, std::ratio<60>> interval_;
  Clock::time_point last_;
};

/// While it lives, the parameters have the values to evaluate and save.
class EvalWeights {
 public:
  explicit EvalWeights(Optimizer& optimizer) : optimizer_(optimizer) { optimizer.eval(); }
  ~EvalWeights() {
    try {
      if (!done_) optimizer_.train();
    } catch (...) {  // the exception that ended the scope is more important
    }
  }
  void done() {
    done_ = true;
    optimizer_.train();
  }
  EvalWeights(const EvalWeights&) = delete;
  EvalWeights& operator=(const EvalWeights&) = delete;

 private:
  Optimizer& optimizer_;
  bool done_ = false;
};

}  // namespace

void require_evaluations(const Scheduler& scheduler, const TrainingOptions& options, bool eval_data) {
  if (!scheduler.needs_evaluations()) return;
  if (!eval_data)
    throw ConfigError(
        "[scheduler] follows the evaluation loss, but there is no evaluation data; set data.eval or data.eval_split");
  if (options.eval_every == 0)
    throw ConfigError(
        "[scheduler] follows the evaluation loss, but there is no evaluation before the end; set training.eval_every");
}

void require_resumable(const TrainingSession& run) {
  const auto saved = run.resume->find("progress");
  const StepSampler steps(run.data, run.options, run.packing, run.max_length);
  Progress(run, steps.total()).load_state_dict(saved == run.resume->end() ? StateDict{} : saved->second);
}

TrainingResult train(TrainingSession& run) {
  auto& [model, optimizer, scheduler, clipping, precision, objective, adapters, data, eval_data, packing, max_length,
         options, memory, callbacks, save, resume] = run;
  require_evaluations(scheduler, options, eval_data != nullptr);
  const std::vector<Tensor> parameters = parameters_of(optimizer.groups());
  require_all_trained(model, parameters, adapters);
  const std::string hash = base_hash(model);
  GradientCheck gradient_check(model);
  StepSampler steps(data, options, packing, max_length);
  Progress progress(run, steps.total());
  model.enable_fusion(options.fused);
  model.train();
  optimizer.train();
  optimizer.zero_grad();
  const std::vector<StatefulComponent> components = components_of(run, steps, progress);
  if (resume != nullptr) {
    load_states(components, *resume);
    resume->clear();
  }
  const int64_t done = progress.result().steps, total = steps.total();

  std::optional<StepProfile> profile;
  if (options.profile) profile.emplace();
  SaveTimer timer(options);
  bool stopped = false;
  for (int64_t step = done + 1; step <= total && !stopped; ++step) {
    if (profile && step == done + 2) profile->reset();  // the first step also allocates memory
    const StepSampler::Step plan = steps.next();
    std::vector<Batch> batches;
    for (const auto& examples : plan.batches) batches.push_back(make_batch(data, examples));
    const auto [tokens, num_target_tokens, totals] = count(batches, step, run);

    if (optimizer.needs_sampled_label_gradients()) run_sampled_label_pass(run, batches, totals);
    const StepResult outcome = take_step(run, parameters, batches, totals, {step, total}, gradient_check);
    if (outcome.overflowed) progress.skip();
    if (!outcome.overflowed && !outcome.fault) progress.learn(outcome.norm);
    if (outcome.fault) {
      handle_nonfinite_step(run, progress, *outcome.fault, plan, step, tokens);
    } else {
      StepReport report;
      report.step = step, report.epoch = plan.epoch, report.loss = outcome.loss;
      report.grad_norm = outcome.overflowed ? std::numeric_limits<double>::infinity() : outcome.norm;
      report.tokens = tokens, report.num_target_tokens = num_target_tokens;
      progress.step(report, plan.batches.front().front());
    }

    const bool last = step == total;
    const auto every = [&](int64_t steps_between) { return steps_between > 0 && step % steps_between == 0; };
    const bool evaluates = eval_data != nullptr && (last || every(options.eval_every));
    if (every(options.save_every) || (last && options.save_every > 0)) progress.due();
    stopped = !last && progress.should_stop();
    const bool timed = !last && !outcome.fault && timer.is_due();
    if (!evaluates && !progress.is_due() && !stopped && !last && !timed) continue;
    EvalWeights weights(optimizer);
    if (evaluates) {
      memory.phase(MemoryPhase::evaluate);
      const double eval_loss = evaluate(model, precision, objective, *eval_data, options.batch_size).loss;
      scheduler.on_evaluation(eval_loss);
      progress.on_evaluate(step, plan.epoch, eval_loss);
      model.train();
      stopped = !last && progress.should_stop();
    }
    if (last) check_final_step(run, progress.learned(), step);
    // After a non-finite step the checkpoint waits for a finite one, unless this is the last step.
    const bool saves = progress.is_due() && (!outcome.fault || last);
    if (saves || stopped || timed) {
      memory.phase(MemoryPhase::save);
      if (saves) progress.snapshot();  // how a run ends must not depend on signals and time
      Snapshot snapshot{step, states_of(components), progress.result().best, !outcome.fault && !outcome.overflowed,
                        /*temporary=*/!saves && !stopped};
      const StateDict& optimizer_state = snapshot.states.at("optimizer");
      if (!snapshot.temporary) require_finite(run, optimizer_state, step);
      if (!snapshot.temporary || nonfinite_tensors(run, optimizer_state).empty()) save(snapshot);
      timer.restart();
    }
    weights.done();
  }

  optimizer.eval();
  require_unchanged(model, hash);
  TrainingResult result = progress.result();
  if (!stopped && result.steps == result.skipped + result.nonfinite)
    throw DivergedError("no step was taken: the loss or the gradients of every step were not finite");
  result.base_hash = hash;
  result.learning = progress.learning();
  result.stopped = stopped;
  if (profile) result.profile = profile->seconds();
  return result;
}

}  // namespace peft

// The training loop. It reads from top to bottom; what it calls is in the files beside it.
#include "peft/train.h"

#include <torch/torch.h>

#include <cmath>

#include "peft/error.h"
#include "peft/profile.h"
#include "peft/resume.h"
#include "train/parts.h"
#include "train/progress.h"
#include "train/proof.h"
#include "train/sampled_gradients.h"

namespace peft {

namespace {

struct StepTokens {
  int64_t tokens = 0, supervised = 0;
};

StepTokens count(const std::vector<Batch>& batches, int64_t step, const Model& model) {
  StepTokens sum;
  for (const Batch& batch : batches) {
    sum.tokens += static_cast<int64_t>(batch.ids.size());
    sum.supervised += batch.supervised(model.virtual_tokens() > 0);
  }
  if (sum.supervised == 0)
    throw InputError("step " + std::to_string(step) + ": all labels are masked, there is nothing to learn from");
  return sum;
}

void require_finite(double value, const char* what, int64_t step) {
  if (!std::isfinite(value))
    throw DivergedError("step " + std::to_string(step) + ": the " + what + " is " + std::to_string(value) +
                        "; try a lower learning rate, gradient clipping or a wider precision");
}

/// All that a resumed run must find as it was. The adapter's tensors are in its own file.
std::vector<Part> parts_of(Run& run, Steps& steps, Progress& progress) {
  std::vector<Part> parts{part("progress", progress), part("position", steps), part("optimizer", run.optimizer),
                          part("precision", run.precision), part("clipping", run.clipper),
                          scheduler_part(run.scheduler), random_part(run.model.device())};
  for (std::size_t i = 0; i < run.adapters.size(); ++i)
    parts.push_back(part("method" + (i == 0 ? "" : std::to_string(i)), *run.adapters[i]));
  return parts;
}

/// The method's own part of the loss, with its gradients.
double add_auxiliary(const Adapter& adapter, Precision& precision) {
  const Tensor extra = adapter.auxiliary_loss();
  if (!extra.defined()) return 0;
  precision.backward(extra);
  return extra.item<double>();
}

/// As long as it lives, the parameters hold what is to be evaluated and saved.
class EvalWeights {
 public:
  explicit EvalWeights(Optimizer& optimizer) : optimizer_(optimizer) { optimizer.eval(); }
  ~EvalWeights() { optimizer_.train(); }
  EvalWeights(const EvalWeights&) = delete;
  EvalWeights& operator=(const EvalWeights&) = delete;

 private:
  Optimizer& optimizer_;
};

}  // namespace

void require_evaluations(const Scheduler& scheduler, const TrainingOptions& options, bool eval_data) {
  if (!scheduler.needs_evaluations()) return;
  if (!eval_data)
    throw ConfigError(
        "[scheduler] follows the evaluation loss, but nothing is held out; set data.eval or data.eval_split");
  if (options.eval_every == 0)
    throw ConfigError(
        "[scheduler] follows the evaluation loss, but there is no evaluation before the end; set training.eval_every");
}

void require_resumable(const Run& run) {
  const auto saved = run.resume->find("progress");
  const Steps steps(run.data, run.options, run.packing, run.max_length);
  Progress(run, steps.total()).load(saved == run.resume->end() ? State{} : saved->second);
}

TrainingResult train(Run& run) {
  auto& [model, optimizer, scheduler, clipper, precision, adapters, data, eval_data, packing, max_length, options,
         memory, observers, save, stop, resume] = run;
  require_evaluations(scheduler, options, eval_data != nullptr);
  const torch::Device device = model.device();
  const std::vector<Tensor> parameters = parameters_of(optimizer.groups());
  require_all_trained(model, parameters);
  const std::string hash = base_hash(model);
  GradientProof proof(model);
  Steps steps(data, options, packing, max_length);
  Progress progress(run, steps.total());
  model.enable_fusion(options.fused);
  model.train();
  optimizer.train();
  optimizer.zero_grad();
  const std::vector<Part> parts = parts_of(run, steps, progress);
  if (resume != nullptr) load_states(parts, *resume);
  const int64_t done = progress.result().steps;

  std::optional<StepProfile> profile;
  if (options.profile) profile.emplace();
  bool stopped = false;
  for (int64_t step = done + 1; step <= steps.total() && !stopped; ++step) {
    if (profile && step == done + 2) profile->reset();  // the first step takes its memory besides
    const Steps::Step plan = steps.next();
    std::vector<Batch> batches;
    for (const auto& examples : plan.batches) batches.push_back(make_batch(data, examples));
    const auto [tokens, supervised] = count(batches, step, model);

    if (optimizer.wants_sampled_gradients()) show_sampled_gradients(run, batches, supervised);
    double loss = 0;
    for (const Batch& batch : batches) {
      memory.phase(MemoryPhase::forward);
      const Input input = to_input(batch, device);
      const Tensor labels = to_labels(batch, device);
      // Divided by the whole step's tokens, so that micro-batches add up to one large batch.
      const Tensor part =
          precision.forward([&] { return model.loss_sum(input, labels) / static_cast<double>(supervised); });
      loss += part.item<double>();
      require_finite(loss, "loss", step);
      memory.phase(MemoryPhase::backward);
      precision.backward(part);
      attribute(gradients(parameters), MemoryComponent::gradients);
    }

    for (const Adapter* adapter : adapters) loss += add_auxiliary(*adapter, precision);
    require_finite(loss, "loss", step);

    const StepPosition position{step, steps.total()};
    memory.phase(MemoryPhase::optimizer);
    double norm = 0;
    if (precision.ready(parameters)) {
      PEFT_PART("clipping and optimizer");
      for (Adapter* adapter : adapters) adapter->after_backward(position);
      norm = clipper.clip(optimizer.groups());
      require_finite(norm, "gradient norm", step);
      if (proof.open()) proof.check();
      for (ParamGroup& group : optimizer.groups()) group.lr = scheduler.lr(step - 1, steps.total(), *group.initial_lr);
      optimizer.step();
      for (Adapter* adapter : adapters) adapter->after_step(position);
    } else {
      progress.skip();
    }
    optimizer.zero_grad();

    StepReport report;
    report.step = step, report.epoch = plan.epoch, report.loss = loss, report.grad_norm = norm;
    report.tokens = tokens, report.supervised = supervised;
    progress.step(report);
    const bool last = step == steps.total();
    const auto every = [&](int64_t steps_between) { return steps_between > 0 && step % steps_between == 0; };
    stopped = !last && stop();
    const bool evaluates = eval_data != nullptr && (last || every(options.eval_every)),
               saves = stopped || every(options.save_every) || (last && options.save_every > 0);
    if (!evaluates && !saves) continue;
    const EvalWeights weights(optimizer);
    if (evaluates) {
      memory.phase(MemoryPhase::evaluate);
      const double eval_loss = evaluate(model, precision, *eval_data, options.batch_size).loss;
      scheduler.observe(eval_loss);
      progress.evaluated(step, plan.epoch, eval_loss);
      model.train();
    }
    if (saves) {
      memory.phase(MemoryPhase::save);
      progress.snapshot();
      save({step, states_of(parts), progress.result().best});
    }
  }

  optimizer.eval();
  if (!stopped && done < steps.total()) proof.require_closed();
  require_unchanged(model, hash);
  TrainingResult result = progress.result();
  result.base_hash = hash;
  result.stopped = stopped;
  if (profile) result.profile = profile->seconds();
  return result;
}

}  // namespace peft

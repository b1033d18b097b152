// The training loop. It reads from top to bottom; what it calls is in the files beside it.
#include "peft/train.h"

#include <torch/torch.h>

#include <cmath>

#include "peft/error.h"
#include "peft/resume.h"
#include "train/parts.h"
#include "train/progress.h"
#include "train/proof.h"

namespace peft {

namespace {

std::vector<Tensor> parameters_of(Optimizer& optimizer) {
  std::vector<Tensor> all;
  for (const ParamGroup& group : optimizer.groups())
    for (const auto& [name, parameter] : group.parameters) all.push_back(parameter);
  return all;
}

struct StepTokens {
  int64_t tokens = 0, supervised = 0;
};

StepTokens count(const std::vector<Batch>& batches, int64_t step) {
  StepTokens sum;
  for (const Batch& batch : batches) {
    sum.tokens += static_cast<int64_t>(batch.ids.size());
    sum.supervised += batch.supervised();
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
                          part("precision", run.precision), random_part(run.model.device())};
  if (run.adapter != nullptr) parts.push_back(part("method", *run.adapter));
  return parts;
}

/// The method's own part of the loss, with its gradients.
double add_auxiliary(const Adapter& adapter, Precision& precision) {
  const Tensor extra = adapter.auxiliary_loss();
  if (!extra.defined()) return 0;
  precision.backward(extra);
  return extra.item<double>();
}

}  // namespace

void require_resumable(const Run& run) {
  const auto saved = run.resume->find("progress");
  const Steps steps(run.data, run.options, run.packing, run.max_length);
  Progress(run, steps.total()).load(saved == run.resume->end() ? State{} : saved->second);
}

TrainingResult train(Run& run) {
  auto& [model, optimizer, scheduler, clipper, precision, adapter, data, eval_data, packing, max_length, options,
         memory, observers, save, stop, resume] = run;
  const torch::Device device = model.device();
  const std::vector<Tensor> parameters = parameters_of(optimizer);
  require_all_trained(model, parameters);
  const std::string hash = base_hash(model);
  GradientProof proof(model);
  Steps steps(data, options, packing, max_length);
  Progress progress(run, steps.total());
  model.enable_fusion(options.fused);
  model.train();
  optimizer.zero_grad();
  const std::vector<Part> parts = parts_of(run, steps, progress);
  if (resume != nullptr) load_states(parts, *resume);
  const int64_t done = progress.result().steps;

  bool stopped = false;
  for (int64_t step = done + 1; step <= steps.total() && !stopped; ++step) {
    const Steps::Step plan = steps.next();
    std::vector<Batch> batches;
    for (const auto& examples : plan.batches) batches.push_back(make_batch(data, examples));
    const auto [tokens, supervised] = count(batches, step);

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

    if (adapter != nullptr) loss += add_auxiliary(*adapter, precision);
    require_finite(loss, "loss", step);

    const StepPosition position{step, steps.total()};
    memory.phase(MemoryPhase::optimizer);
    double norm = 0;
    if (precision.ready(parameters)) {
      if (adapter != nullptr) adapter->after_backward(position);
      norm = clipper.clip(parameters);
      require_finite(norm, "gradient norm", step);
      if (proof.open()) proof.check();
      for (ParamGroup& group : optimizer.groups()) group.lr = scheduler.lr(step - 1, steps.total(), *group.initial_lr);
      optimizer.step();
      if (adapter != nullptr) adapter->after_step(position);
    } else {
      progress.skip();
    }
    optimizer.zero_grad();

    StepReport report;
    report.step = step, report.epoch = plan.epoch, report.loss = loss, report.grad_norm = norm;
    report.tokens = tokens, report.supervised = supervised;
    progress.step(report);
    const bool last = step == steps.total();
    if (eval_data != nullptr && (last || (options.eval_every > 0 && step % options.eval_every == 0))) {
      memory.phase(MemoryPhase::evaluate);
      progress.evaluated(step, plan.epoch, evaluate(model, precision, *eval_data, options.batch_size).loss);
      model.train();
    }
    stopped = !last && stop();
    if (stopped || (options.save_every > 0 && (last || step % options.save_every == 0))) {
      memory.phase(MemoryPhase::save);
      progress.snapshot();
      save({step, states_of(parts), progress.result().best});
    }
  }

  if (!stopped && done < steps.total()) proof.require_closed();
  require_unchanged(model, hash);
  TrainingResult result = progress.result();
  result.base_hash = hash;
  result.stopped = stopped;
  return result;
}

}  // namespace peft

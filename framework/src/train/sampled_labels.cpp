#include "train/sampled_labels.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>

#include "peft/base/error.h"

namespace peft {

namespace {

/// The batch's labels [T], each target replaced by a sample.
Tensor sample_labels(const CausalLm& model, const Pass& pass) {
  const torch::NoGradGuard no_grad;
  const Tensor& labels = pass.labels();
  const Tensor samples = at::empty_like(pass.targets());
  pass.for_each_logits([&](const Tensor& logits, const Tensor& targets, int64_t first) {
    const auto wide = accumulation_dtype(logits);
    // For logits that are not finite any label will do: the loss reports them.
    samples.narrow(0, first, targets.size(0))
        .copy_(at::multinomial(at::softmax(logits, -1, wide).nan_to_num(1), 1).squeeze(1));
  });
  Tensor is_target = labels.ne(ignored_label);
  if (model.virtual_tokens() == 0) {  // no position predicts an example's first token
    const std::vector<int64_t>& cu_seqlens = pass.input().cu_seqlens;
    for (std::size_t example = 0; example + 1 < cu_seqlens.size(); ++example)
      if (cu_seqlens[example] < cu_seqlens[example + 1]) is_target[cu_seqlens[example]] = false;
  }
  return labels.index_copy(0, is_target.nonzero().squeeze(1), samples);
}

Tensor sampled_loss(TrainingSession& run, const Batch& batch, const Totals& totals) {
  PackedTokens input;
  Tensor labels;
  {
    const Pass pass(run.model, batch);
    input = pass.input();
    labels = sample_labels(run.model, pass);
  }
  const Pass sampled(run.model, input, labels);
  return run.objective.loss(sampled, totals);
}

}  // namespace

void run_sampled_label_pass(TrainingSession& run, const std::vector<Batch>& batches, const Totals& totals) {
  if (!run.objective.is_likelihood())
    throw ConfigError(
        "[optimizer] needs the gradients of sampled labels, but the loss of this [objective] is not a likelihood; "
        "choose "
        "another optimizer");
  const std::vector<Tensor> parameters = parameters_of(run.optimizer.groups());
  for (const Batch& batch : batches) {
    run.memory.phase(MemoryPhase::forward);
    const Tensor micro_loss = run.precision.forward([&] { return sampled_loss(run, batch, totals); });
    if (!std::isfinite(micro_loss.item<double>()))
      return run.optimizer.zero_grad();  // the step's own loss will not be finite, either
    run.memory.phase(MemoryPhase::backward);
    run.precision.backward(micro_loss);
    attribute(gradients(parameters), MemoryComponent::gradients);
  }
  run.memory.phase(MemoryPhase::optimizer);
  if (run.precision.unscale_gradients(parameters) && std::isfinite(global_norm(gradients(parameters))))
    run.optimizer.on_sampled_label_gradients(static_cast<int64_t>(totals.front()));
  run.optimizer.zero_grad();
}

}  // namespace peft

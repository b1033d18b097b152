#include "train/sampled_labels.h"

#include <torch/torch.h>

#include <cmath>

#include "ops/kernels.h"
#include "plugin/plugin_call.h"
#include "train/in_precision.h"
#include "train/step.h"

namespace peft {

namespace {

using detail::call_plugin;

/// `labels` with every supervised one drawn anew; logits exist for a few hundred rows at a time.
Tensor draw_labels(const Model& model, const PackedTokens& input, const Tensor& labels) {
  const torch::NoGradGuard no_grad;
  const auto [hidden, targets] = model.target_rows(input, labels);
  const Tensor drawn = at::empty_like(targets);
  for (int64_t row = 0; row < hidden.size(0); row += kLogitRows) {
    const MemoryScope scope(MemoryComponent::logits);
    const int64_t n = std::min(kLogitRows, hidden.size(0) - row);
    const Tensor logits = model.logits(hidden.narrow(0, row, n));
    const auto wide = logits.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
    // Of logits that are not finite any label will do: the loss shows them.
    drawn.narrow(0, row, n).copy_(at::multinomial(at::softmax(logits, -1, wide).nan_to_num(1), 1).squeeze(1));
  }
  Tensor learned = labels.ne(-100);
  if (model.virtual_tokens() == 0)  // nothing stands before an example's first token that could say it
    for (std::size_t example = 0; example + 1 < input.cu_seqlens.size(); ++example)
      if (input.cu_seqlens[example] < input.cu_seqlens[example + 1]) learned[input.cu_seqlens[example]] = false;
  return labels.index_copy(0, learned.nonzero().squeeze(1), drawn);
}

}  // namespace

void run_sampled_label_pass(TrainingSession& run, const std::vector<Batch>& batches, int64_t num_target_tokens) {
  const std::vector<Tensor> parameters = parameters_of(run.optimizer.groups());
  for (const Batch& batch : batches) {
    run.memory.phase(MemoryPhase::forward);
    const PackedTokens input = to_packed_tokens(batch, run.model.device());
    const Tensor labels = to_labels(batch, run.model.device());
    const Tensor part = forward_in(run.precision, [&] {
      return run.model.loss_sum(input, draw_labels(run.model, input, labels)) / static_cast<double>(num_target_tokens);
    });
    if (!std::isfinite(part.item<double>())) return zero_grad(run.optimizer);  // as the step's own loss will be
    run.memory.phase(MemoryPhase::backward);
    backward_in(run.precision, part);
    attribute(gradients(parameters), MemoryComponent::gradients);
  }
  run.memory.phase(MemoryPhase::optimizer);
  const bool ready = call_plugin(run.precision, "ready", [&] { return run.precision.unscale_gradients(parameters); });
  if (ready && std::isfinite(global_norm(gradients(parameters))))
    call_plugin(run.optimizer, "observe_sampled_gradients",
                [&] { run.optimizer.on_sampled_label_gradients(num_target_tokens); });
  zero_grad(run.optimizer);
}

}  // namespace peft

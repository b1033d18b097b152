#include "train/sampled_labels.h"

#include <torch/torch.h>

#include <cmath>

#include "ops/kernels.h"

namespace peft {

namespace {

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
    const Tensor part = run.precision.forward([&] {
      return run.model.loss_sum(input, draw_labels(run.model, input, labels)) / static_cast<double>(num_target_tokens);
    });
    if (!std::isfinite(part.item<double>())) return run.optimizer.zero_grad();  // as the step's own loss will be
    run.memory.phase(MemoryPhase::backward);
    run.precision.backward(part);
    attribute(gradients(parameters), MemoryComponent::gradients);
  }
  run.memory.phase(MemoryPhase::optimizer);
  if (run.precision.unscale_gradients(parameters) && std::isfinite(global_norm(gradients(parameters))))
    run.optimizer.on_sampled_label_gradients(num_target_tokens);
  run.optimizer.zero_grad();
}

}  // namespace peft

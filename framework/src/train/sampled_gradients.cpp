#include "train/sampled_gradients.h"

#include <torch/torch.h>

#include <cmath>

#include "model/kernels.h"
#include "plugin/in_plugin.h"
#include "train/in_precision.h"
#include "train/step.h"

namespace peft {

namespace {

using detail::in_plugin;

/// `labels` with every supervised one drawn anew; logits exist for a few hundred rows at a time.
Tensor draw_labels(const Model& model, const Input& input, const Tensor& labels) {
  const torch::NoGradGuard no_grad;
  const auto [hidden, targets] = model.supervised(input, labels);
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
    for (std::size_t example = 0; example + 1 < input.starts.size(); ++example)
      if (input.starts[example] < input.starts[example + 1]) learned[input.starts[example]] = false;
  return labels.index_copy(0, learned.nonzero().squeeze(1), drawn);
}

}  // namespace

void show_sampled_gradients(Run& run, const std::vector<Batch>& batches, int64_t supervised) {
  const std::vector<Tensor> parameters = parameters_of(run.optimizer.groups());
  for (const Batch& batch : batches) {
    run.memory.phase(MemoryPhase::forward);
    const Input input = to_input(batch, run.model.device());
    const Tensor labels = to_labels(batch, run.model.device());
    const Tensor part = forward_in(run.precision, [&] {
      return run.model.loss_sum(input, draw_labels(run.model, input, labels)) / static_cast<double>(supervised);
    });
    if (!std::isfinite(part.item<double>())) return zero_grad(run.optimizer);  // as the step's own loss will be
    run.memory.phase(MemoryPhase::backward);
    backward_in(run.precision, part);
    attribute(gradients(parameters), MemoryComponent::gradients);
  }
  run.memory.phase(MemoryPhase::optimizer);
  const bool ready = in_plugin(run.precision, "ready", [&] { return run.precision.ready(parameters); });
  if (ready && std::isfinite(global_norm(gradients(parameters))))
    in_plugin(run.optimizer, "observe_sampled_gradients", [&] { run.optimizer.observe_sampled_gradients(supervised); });
  zero_grad(run.optimizer);
}

}  // namespace peft

#include <torch/torch.h>

#include <algorithm>
#include <cmath>

#include "ops/kernels.h"
#include "peft/base/error.h"
#include "peft/train/train.h"

namespace peft {

PackedTokens to_packed_tokens(const Batch& batch, torch::Device device) {
  const auto tensor = [&](const std::vector<int64_t>& values) {
    return torch::tensor(values, torch::kLong).to(device);
  };
  return {tensor(batch.ids), tensor(batch.positions), batch.cu_seqlens};
}

Tensor to_labels(const Batch& batch, torch::Device device) {
  return torch::tensor(batch.labels, torch::kLong).to(device);
}

double Evaluation::perplexity() const { return std::exp(loss); }

namespace {

/// [loss summed, tokens right, tokens] of a batch, in fp64; logits exist for a few hundred rows at a time.
Tensor score(const Model& model, const PackedTokens& input, const Tensor& labels) {
  const auto [hidden, targets] = model.target_rows(input, labels);
  Tensor sums = at::zeros({3}, hidden.options().dtype(torch::kDouble));
  for (int64_t row = 0; row < hidden.size(0); row += kLogitRows) {
    const MemoryScope scope(MemoryComponent::logits);
    const int64_t n = std::min(kLogitRows, hidden.size(0) - row);
    const Tensor logits = model.logits(hidden.narrow(0, row, n)), right = targets.narrow(0, row, n);
    const auto wide = logits.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
    sums[0] += at::cross_entropy_loss(logits.to(wide), right, {}, at::Reduction::Sum);
    sums[1] += (logits.argmax(-1) == right).sum();
  }
  sums[2].fill_(targets.size(0));
  return sums;
}

}  // namespace

Evaluation evaluate(Model& model, Precision& precision, const Dataset& data, int64_t batch_size) {
  const torch::NoGradGuard no_grad;
  model.eval();
  double loss = 0, right = 0;
  Evaluation result;
  for (const auto& examples : evaluation_batches(data, batch_size)) {
    const Batch batch = make_batch(data, examples);
    const PackedTokens input = to_packed_tokens(batch, model.device());
    const Tensor labels = to_labels(batch, model.device());
    const Tensor sums = precision.forward([&] { return score(model, input, labels); });
    loss += sums[0].item<double>();
    right += sums[1].item<double>();
    result.tokens += sums[2].item<int64_t>();
  }
  if (result.tokens == 0) throw InputError("there is nothing to evaluate: no supervised token");
  result.loss = loss / static_cast<double>(result.tokens);
  result.accuracy = right / static_cast<double>(result.tokens);
  return result;
}

}  // namespace peft

#include "peft/train/pass.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "ops/cross_entropy.h"
#include "ops/logit_chunks.h"
#include "ops/recompute.h"
#include "peft/runtime/memory.h"
#include "plugin/plugin_call.h"

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

namespace {

/// Of a head that has adapters or trains: its logits are recomputed in the backward pass.
Tensor head_cross_entropy(const CausalLm& model, const Tensor& rows, const Tensor& targets) {
  const MemoryScope scope(MemoryComponent::logits);
  const Tensor logits = model.logits(rows);
  const auto wide = accumulation_dtype(logits);
  return at::cross_entropy_loss(logits.to(wide), targets, {}, at::Reduction::Sum);
}

Tensor cross_entropy_sum_of(const CausalLm& model, const Tensor& hidden, const Tensor& targets) {
  const Linear& head = model.lm_head();
  if (!head.adapted() && !head.uses_copies()) return linear_cross_entropy_sum(hidden, *head.base_weight(), targets);
  if (hidden.size(0) <= kLogitRows) return head_cross_entropy(model, hidden, targets);
  std::vector<Tensor> sums;
  for_logit_chunks(hidden.size(0), [&](int64_t first, int64_t rows) {
    const auto of_rows = [&model, chunk = targets.narrow(0, first, rows)](const Tensor& x) {
      return head_cross_entropy(model, x, chunk);
    };
    sums.push_back(recomputed(hidden.narrow(0, first, rows), of_rows));
  });
  return at::stack(sums).sum();
}

}  // namespace

template <class Work>
auto Pass::in_core(Work&& work) const {
  return core_ != nullptr ? (*core_)(work) : work();
}

Pass::Pass(const CausalLm& model, const Batch& batch)
    : Pass(model, to_packed_tokens(batch, model.device()), to_labels(batch, model.device())) {}

Pass::Pass(const CausalLm& model, PackedTokens input, Tensor labels)
    : model_(model), input_(std::move(input)), labels_(std::move(labels)) {}

const TargetRows& Pass::target_rows() const {
  const bool needs_grad = at::GradMode::is_enabled();
  if (!target_rows_ || (needs_grad && !has_grad_)) {
    target_rows_ = model_.target_rows(input_, labels_);
    has_grad_ = needs_grad;
  }
  return *target_rows_;
}

const Tensor& Pass::targets() const {
  return *in_core([&] { return &target_rows().targets; });
}

Tensor Pass::cross_entropy_sum() const {
  return in_core([&] {
    const auto& [hidden, targets] = target_rows();
    return cross_entropy_sum_of(model_, hidden, targets);
  });
}

void Pass::for_each_logits(
    const std::function<void(const Tensor& logits, const Tensor& targets, int64_t first)>& body) const {
  const auto& [hidden, targets] = *in_core([&] { return &target_rows(); });
  const torch::NoGradGuard no_grad;
  for_logit_chunks(hidden.size(0), [&, &hidden = hidden, &targets = targets](int64_t first, int64_t rows) {
    const MemoryScope scope(MemoryComponent::logits);
    const Tensor logits = in_core([&] { return model_.logits(hidden.narrow(0, first, rows)); });
    body(logits, targets.narrow(0, first, rows), first);
  });
}

}  // namespace peft

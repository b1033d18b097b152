#include "peft/estimate.h"

#include <torch/torch.h>

#include <numeric>

#include "model/kernels.h"
#include "model/low_rank.h"

namespace peft {

namespace {

uint64_t& at(MemoryEstimate& estimate, MemoryComponent component) {
  return estimate.components[static_cast<std::size_t>(component)];
}

/// Elements of one layer's activations for each token; see blocks.cpp and kernels.cpp.
struct LayerElements {
  int64_t kept;     ///< from the forward pass for the backward one
  int64_t working;  ///< besides, while it runs backward
};

/// Ranks of what is adapted in a layer: the products with A are kept.
struct LayerRanks {
  int64_t attention = 0, mlp = 0;
  bool fused = true;  ///< nothing but frozen and low-rank Linears
};

std::vector<LayerRanks> layer_ranks(const Model& model) {
  std::vector<LayerRanks> ranks(static_cast<std::size_t>(model.config().num_hidden_layers));
  const std::string prefix = "model.layers.";
  for (const Site* site : model.sites()) {
    if (!site->path().starts_with(prefix) || !site->touched()) continue;
    LayerRanks& own = ranks[std::stoul(site->path().substr(prefix.size()))];
    const auto* linear = dynamic_cast<const Linear*>(site);
    const auto adapted = linear == nullptr ? std::nullopt : adapted_linear(*linear);
    if (!adapted) own.fused = false;
    if (adapted && adapted->update)
      (site->path().find(".mlp.") == std::string::npos ? own.attention : own.mlp) += adapted->update->A.size(0);
  }
  return ranks;
}

LayerElements layer_elements(const DecoderConfig& c, Checkpointing keeping, const LayerRanks& ranks) {
  const int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  // The norm's input, and its output where it is kept; q, k, v and the mixed heads.
  const int64_t attention = (ranks.fused ? 1 : 2) * c.hidden_size + 2 * queries + 2 * keys + ranks.attention;
  // The norm's input, gate and up; where they are kept, the norm's output and the product of gate and up.
  const int64_t mlp = (ranks.fused ? 1 : 2) * c.hidden_size + (ranks.fused ? 2 : 3) * c.intermediate_size + ranks.mlp;
  const int64_t gradients = 4 * c.intermediate_size + 2 * c.hidden_size;  // the most that a block holds at once
  switch (keeping) {
    case Checkpointing::none:
      return {attention + mlp, gradients};
    case Checkpointing::selective:
      return {attention + c.hidden_size, gradients + mlp};
    case Checkpointing::full:
      return {c.hidden_size, gradients + attention + mlp};
  }
  __builtin_unreachable();
}

/// All layers, and the gradients where they are the most.
int64_t activation_elements(const Model& model) {
  const DecoderConfig& c = model.config();
  const auto ranks = layer_ranks(model);
  int64_t kept = c.hidden_size, working = 0;
  for (std::size_t layer = 0; layer < ranks.size(); ++layer) {
    const LayerElements elements = layer_elements(c, model.checkpointing()[layer], ranks[layer]);
    kept += elements.kept;
    working = std::max(working, elements.working);
  }
  return kept + working;
}

}  // namespace

uint64_t MemoryEstimate::total() const {
  return std::accumulate(components.begin(), components.end(), uint64_t{0}) + mapped;
}

MemoryEstimate estimate_memory(const Model& model, const Optimizer& optimizer, int64_t tokens, int64_t supervised) {
  const DecoderConfig& c = model.config();
  MemoryEstimate estimate;
  std::vector<Tensor> base, adapter;
  for (const auto& [name, tensor] : model.frozen()) base.push_back(tensor);
  for (const auto& [name, tensor] : model.adapter_tensors()) adapter.push_back(tensor);
  const StorageBytes stored = storage_bytes(base);
  at(estimate, MemoryComponent::base) = stored.owned;
  estimate.mapped = stored.mapped;
  at(estimate, MemoryComponent::adapter) = storage_bytes(adapter).owned;

  for (const auto& [name, tensor] : model.trainable()) {
    at(estimate, MemoryComponent::gradients) += tensor.nbytes();
    at(estimate, MemoryComponent::optimizer) += optimizer.state_bytes(tensor);
  }

  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype()));
  at(estimate, MemoryComponent::activations) = static_cast<uint64_t>(tokens * activation_elements(model) * width);
  at(estimate, MemoryComponent::logits) =
      static_cast<uint64_t>(std::min(kLogitRows, supervised) * c.vocab_size * (width + (width < 4 ? 4 : 0)));
  return estimate;
}

}  // namespace peft

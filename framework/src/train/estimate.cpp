#include "peft/estimate.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "model/kernels.h"
#include "model/low_rank.h"
#include "model/virtual_rows.h"
#include "plugin/in_plugin.h"

namespace peft {

namespace {

uint64_t& at(MemoryEstimate& estimate, MemoryComponent component) {
  return estimate.components[static_cast<std::size_t>(component)];
}

/// Elements of one layer's activations; see blocks.cpp and kernels.cpp.
struct LayerElements {
  int64_t kept;     ///< from the forward pass for the backward one
  int64_t working;  ///< besides, while it runs backward
};

/// What is adapted in one half of a layer.
struct HalfLayer {
  int64_t ranks = 0;  ///< the products with A are kept
  bool fused = true;  ///< nothing but frozen and low-rank Linears
};
struct AdaptedLayer {
  HalfLayer attention, mlp;
  bool learns = false;  ///< something in it or below it: what it computes is kept for the backward pass
  int64_t front = 0;    ///< keys in front of each example's own
  int64_t gated = 0;    ///< elements for each row of what is attended to by itself
};

std::vector<AdaptedLayer> adapted_layers(const Model& model) {
  const DecoderConfig& c = model.config();
  std::vector<AdaptedLayer> layers(static_cast<std::size_t>(c.num_hidden_layers));
  const std::string prefix = "model.layers.";
  for (const Site* site : model.sites()) {
    const std::string& path = site->path();
    if (!path.starts_with(prefix) || !site->touched()) continue;
    AdaptedLayer& layer = layers[std::stoul(path.substr(prefix.size()))];
    layer.learns = true;
    const bool second = path.find(".mlp") != std::string::npos || path.ends_with(".post_attention_layernorm");
    HalfLayer& own = second ? layer.mlp : layer.attention;
    const auto* linear = dynamic_cast<const Linear*>(site);
    const auto adapted = linear == nullptr ? std::nullopt : adapted_linear(*linear);
    if (!adapted) own.fused = false;
    if (adapted && adapted->update) own.ranks += adapted->update->A.size(0);
    layer.front += keys_in_front(*site);
    // Queries by groups, weights before and behind the gate.
    for (const VirtualKeys* keys : gated_keys(*site))
      layer.gated += c.num_attention_heads * (c.head_dim + 2 * count_of(*keys));
  }
  bool below = model.embedding().touched() || model.virtual_tokens() > 0;
  for (AdaptedLayer& layer : layers) below = layer.learns = layer.learns || below;
  return layers;
}

LayerElements layer_elements(const DecoderConfig& c, Checkpointing keeping, const AdaptedLayer& layer, int64_t rows,
                             int64_t examples) {
  const int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  const auto& [first, second, learns, front, gated] = layer;
  if (!learns) return {0, 0};
  // q, k, v and the mixed heads; before them the norm's input, and its output where it is kept.
  const int64_t heads = 2 * queries + 2 * keys;
  const int64_t attention =
      rows * ((first.fused ? 1 : 2) * c.hidden_size + heads + first.ranks + gated) + examples * front * heads;
  // The norm's input, gate and up; where they are kept, the norm's output and the product of gate and up.
  const int64_t mlp =
      rows * ((second.fused ? 1 : 2) * c.hidden_size + (second.fused ? 2 : 3) * c.intermediate_size + second.ranks);
  const int64_t gradients = rows * (4 * c.intermediate_size + 2 * c.hidden_size);  // the most a block holds at once
  switch (keeping) {
    case Checkpointing::none:
      return {attention + mlp, gradients};
    case Checkpointing::selective:
      return {attention + rows * c.hidden_size, gradients + mlp};
    case Checkpointing::full:
      return {rows * c.hidden_size, gradients + attention + mlp};
  }
  __builtin_unreachable();
}

/// All layers, and the gradients where they are the most.
int64_t activation_elements(const Model& model, const LargestBatch& largest) {
  const DecoderConfig& c = model.config();
  const auto layers = adapted_layers(model);
  const int64_t rows = largest.tokens + largest.examples * model.virtual_tokens();
  int64_t kept = rows * c.hidden_size, working = 0;
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    const LayerElements elements =
        layer_elements(c, model.checkpointing()[layer], layers[layer], rows, largest.examples);
    kept += elements.kept;
    working = std::max(working, elements.working);
  }
  return kept + working;
}

/// What evaluation holds in place of gradients, activations and logits, where that is more: in its layers, which keep
/// nothing, or behind the last of them.
void add_evaluation(MemoryEstimate& estimate, const Model& model, const LargestBatch& evaluated) {
  const DecoderConfig& c = model.config();
  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype())), wide = std::max<int64_t>(width, 4);
  const int64_t rows = evaluated.tokens + evaluated.examples * model.virtual_tokens();
  const int64_t heads = (2 * c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
  const int64_t behind = rows * c.hidden_size * width;
  const int64_t within = 3 * behind + rows * std::max(heads, 3 * c.intermediate_size) * width;
  const int64_t scores =  // the logits, wide, and their logarithms
      std::min(kLogitRows, evaluated.supervised) * c.vocab_size * ((width < 4 ? width : 0) + 2 * wide);
  uint64_t& gradients = at(estimate, MemoryComponent::gradients);
  uint64_t& kept = at(estimate, MemoryComponent::activations);
  uint64_t& logits = at(estimate, MemoryComponent::logits);
  const bool in_layers = within > behind + scores;
  const auto most = static_cast<uint64_t>(in_layers ? within : behind + scores);
  if (most <= gradients + kept + logits) return;
  gradients = 0, logits = in_layers ? 0 : static_cast<uint64_t>(scores), kept = most - logits;
}

}  // namespace

uint64_t MemoryEstimate::total() const {
  return std::accumulate(components.begin(), components.end(), uint64_t{0}) + mapped;
}

uint64_t MemoryEstimate::resident() const { return std::max(total(), reserved + mapped) + program; }

MemoryEstimate estimate_memory(const Model& model, const Optimizer& optimizer, const LargestBatch& largest,
                               const LargestBatch& evaluated) {
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
    at(estimate, MemoryComponent::optimizer) +=
        detail::in_plugin(optimizer, "state_bytes", [&] { return optimizer.state_bytes(tensor); });
  }

  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype()));
  at(estimate, MemoryComponent::activations) = static_cast<uint64_t>(activation_elements(model, largest) * width);
  // The logits, wide; where the head is not the frozen one, their logarithms besides.
  const int64_t wide = std::max<int64_t>(width, 4), adapted = model.head().adapted() || model.head().uses_copies();
  at(estimate, MemoryComponent::logits) = static_cast<uint64_t>(
      std::min(kLogitRows, largest.supervised) * c.vocab_size * ((width < 4 ? width : 0) + wide + adapted * wide));
  add_evaluation(estimate, model, evaluated);

  if (!model.device().is_cpu()) return estimate;
  estimate.reserved = memory_stats(torch::kCPU).reserved;
  const uint64_t resident = resident_bytes();
  estimate.program = resident - std::min(resident, estimate.reserved + estimate.mapped);
  return estimate;
}

}  // namespace peft

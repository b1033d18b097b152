#include "peft/planning/memory_estimate.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "nn/adapted_linear.h"
#include "nn/prefix.h"
#include "ops/kernels.h"
#include "planning/estimator.h"
#include "plugin/plugin_call.h"

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

void take(SublayerCost& half, const Site& site, ActivationProfiler& meter) {
  const std::string& role = site.role();
  const auto* linear = dynamic_cast<const Linear*>(&site);
  const auto adapted = linear == nullptr ? std::nullopt : adapted_linear(*linear);
  bool keeps_input = true;
  if (adapted) {
    half.ranks += adapted->update ? adapted->update->A.size(0) : 0;
  } else {
    const SiteMemory memory = meter.of(site);
    half.fused = false;
    half.others.by_row += memory.by_row, half.others.fixed += memory.fixed;
    keeps_input = memory.input;
  }
  if (role == "down_proj")
    half.product = half.product || keeps_input;
  else if (role != "o_proj" && !role.ends_with("_layernorm"))  // what those take is kept in any case
    half.norm = half.norm || keeps_input;
}

std::vector<AdaptedLayer> adapted_layers(const Model& model, ActivationProfiler& meter) {
  const DecoderConfig& c = model.config();
  std::vector<AdaptedLayer> layers(static_cast<std::size_t>(c.num_hidden_layers));
  for (const Site* site : model.sites()) {
    if (!site->layer() || !site->has_adapter()) continue;
    AdaptedLayer& layer = layers[static_cast<std::size_t>(*site->layer())];
    layer.learns = true;
    const std::string& role = site->role();
    const bool second = role == "mlp" || role == "gate_proj" || role == "up_proj" || role == "down_proj" ||
                        role == "post_attention_layernorm";
    take(second ? layer.mlp : layer.attention, *site, meter);
    layer.front += keys_in_front(*site);
    // Queries by groups, weights before and behind the gate.
    for (const VirtualKeys* keys : gated_keys(*site))
      layer.gated += c.num_attention_heads * (c.head_dim + 2 * count_of(*keys));
  }
  bool below = model.embedding().has_adapter() || model.virtual_tokens() > 0;
  for (AdaptedLayer& layer : layers) below = layer.learns = layer.learns || below;
  return layers;
}

/// What of one half that has its inputs, its heads or its gate is kept besides.
int64_t kept_besides(const DecoderConfig& c, const SublayerCost& half, int64_t rows, int64_t width) {
  const int64_t inputs = half.fused ? 0 : (half.norm ? c.hidden_size : 0) + (half.product ? c.intermediate_size : 0);
  return rows * (inputs + half.ranks) + static_cast<int64_t>(half.others.bytes(rows)) / width;
}

LayerElements layer_elements(const DecoderConfig& c, ActivationCheckpointing keeping, const AdaptedLayer& layer,
                             int64_t rows, int64_t examples, int64_t width) {
  const int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  if (!layer.learns) return {0, 0};
  // The norm's input, q, k, v and the mixed heads.
  const int64_t heads = 2 * queries + 2 * keys;
  const int64_t attention = rows * (c.hidden_size + heads + layer.gated) + examples * layer.front * heads +
                            kept_besides(c, layer.attention, rows, width);
  // The norm's input, gate and up.
  const int64_t mlp = rows * (c.hidden_size + 2 * c.intermediate_size) + kept_besides(c, layer.mlp, rows, width);
  const int64_t gradients = rows * (4 * c.intermediate_size + 2 * c.hidden_size);  // the most a block holds at once
  switch (keeping) {
    case ActivationCheckpointing::none:
      return {attention + mlp, gradients};
    case ActivationCheckpointing::selective:
      return {attention + rows * c.hidden_size, gradients + mlp};
    case ActivationCheckpointing::full:
      return {rows * c.hidden_size, gradients + attention + mlp};
  }
  __builtin_unreachable();
}

/// What evaluation holds in place of gradients, activations and logits, where that is more: in its layers, which keep
/// nothing, or behind the last of them.
void add_evaluation(MemoryEstimate& estimate, const Model& model, const PeakBatch& evaluated) {
  const DecoderConfig& c = model.config();
  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype())), wide = std::max<int64_t>(width, 4);
  const int64_t rows = evaluated.tokens + evaluated.examples * model.virtual_tokens();
  const int64_t heads = (2 * c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim;
  const int64_t behind = rows * c.hidden_size * width;
  const int64_t within = 3 * behind + rows * std::max(heads, 3 * c.intermediate_size) * width;
  const int64_t scores =  // the logits, wide, and their logarithms
      std::min(kLogitRows, evaluated.num_target_tokens) * c.vocab_size * ((width < 4 ? width : 0) + 2 * wide);
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

Estimator::Estimator(const Model& model, const Optimizer& optimizer) : model_(model), optimizer_(optimizer) {
  ActivationProfiler meter(model);
  layers_ = adapted_layers(model, meter);
  if (model.lm_head().adapted() && !adapted_linear(model.lm_head())) head_ = meter.of(model.lm_head());
}

/// All layers, and the gradients where they are the most.
int64_t Estimator::activation_elements(const PeakBatch& largest) const {
  const DecoderConfig& c = model_.config();
  const auto width = static_cast<int64_t>(c10::elementSize(model_.dtype()));
  const int64_t rows = largest.tokens + largest.examples * model_.virtual_tokens();
  int64_t kept = rows * c.hidden_size, working = 0;
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    const LayerElements elements =
        layer_elements(c, model_.checkpointing()[layer], layers_[layer], rows, largest.examples, width);
    kept += elements.kept;
    working = std::max(working, elements.working);
  }
  return kept + working;
}

MemoryEstimate Estimator::of(const PeakBatch& largest, const PeakBatch& evaluated) const {
  const Model& model = model_;
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
        detail::call_plugin(optimizer_, "state_bytes", [&] { return optimizer_.state_bytes(tensor); });
  }

  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype()));
  at(estimate, MemoryComponent::activations) = static_cast<uint64_t>(activation_elements(largest) * width);
  // The logits, wide; where the head is not the frozen one, their logarithms besides.
  const int64_t wide = std::max<int64_t>(width, 4),
                adapted = model.lm_head().adapted() || model.lm_head().uses_copies();
  at(estimate, MemoryComponent::logits) =
      static_cast<uint64_t>(std::min(kLogitRows, largest.num_target_tokens) * c.vocab_size *
                            ((width < 4 ? width : 0) + wide + adapted * wide));
  at(estimate, MemoryComponent::logits) += head_.bytes(std::min(kLogitRows, largest.num_target_tokens));
  add_evaluation(estimate, model, evaluated);

  if (!model.device().is_cpu()) return estimate;
  estimate.reserved = memory_stats(torch::kCPU).reserved;
  const uint64_t resident = resident_bytes();
  estimate.program = resident - std::min(resident, estimate.reserved + estimate.mapped);
  return estimate;
}

MemoryEstimate estimate_memory(const Model& model, const Optimizer& optimizer, const PeakBatch& largest,
                               const PeakBatch& evaluated) {
  return Estimator(model, optimizer).of(largest, evaluated);
}

}  // namespace peft

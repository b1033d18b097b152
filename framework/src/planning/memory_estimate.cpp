#include "peft/planning/memory_estimate.h"

#include <torch/torch.h>

#include <algorithm>
#include <numeric>

#include "nn/adapted_linear.h"
#include "ops/cross_entropy.h"
#include "planning/activation_profiler.h"
#include "planning/estimator.h"

namespace peft {

namespace {

uint64_t& at(MemoryEstimate& estimate, MemoryComponent component) {
  return estimate.components[static_cast<std::size_t>(component)];
}

std::vector<LayerCost> layer_costs(const Model& model, const SiteProfiler& profile) {
  std::vector<LayerCost> layers;
  bool below = model.embedding().has_adapter() || model.virtual_tokens() > 0;
  for (const auto& block : model.layers()) {
    LayerCost& layer = layers.emplace_back();
    for (const auto& sublayer : block->sublayers())
      layer.sublayers.push_back({sublayer->cost(profile), sublayer->recomputed_by_selective()});
    below = layer.needs_grad = below || std::ranges::any_of(block->sites(), &Site::has_adapter);
  }
  return layers;
}

/// Elements of one layer's activations.
struct LayerElements {
  int64_t saved = 0;    ///< from the forward pass for the backward pass
  int64_t working = 0;  ///< in addition, during its backward pass
};

LayerElements layer_elements(const LayerCost& layer, ActivationCheckpointing checkpointing, int64_t rows,
                             int64_t examples, int64_t element_size) {
  LayerElements elements;
  if (!layer.needs_grad) return elements;
  int64_t gradients = 0;
  for (const auto& [cost, by_selective] : layer.sublayers) {
    const int64_t saved = cost.saved(rows, examples, element_size);
    gradients = std::max(gradients, rows * cost.backward_per_row);
    const bool recomputed = checkpointing == ActivationCheckpointing::full ||
                            (checkpointing == ActivationCheckpointing::selective && by_selective);
    (recomputed ? elements.working : elements.saved) += saved;
    if (recomputed && checkpointing == ActivationCheckpointing::selective) elements.saved += rows * cost.input_per_row;
  }
  if (checkpointing == ActivationCheckpointing::full && !layer.sublayers.empty())
    elements.saved += rows * layer.sublayers.front().cost.input_per_row;
  elements.working += gradients;
  return elements;
}

}  // namespace

uint64_t MemoryEstimate::total() const {
  return std::accumulate(components.begin(), components.end(), uint64_t{0}) + mapped;
}

uint64_t MemoryEstimate::resident() const { return std::max(total(), reserved + mapped) + program; }

Estimator::Estimator(const CausalLm& model, const Optimizer& optimizer) : model_(model), optimizer_(optimizer) {
  ActivationProfiler profiler(model);
  const SiteProfiler profile = [&profiler](const Site& site) { return profiler.profile(site); };
  layers_ = layer_costs(model, profile);
  if (model.lm_head().adapted() && !adapted_linear(model.lm_head())) head_ = profile(model.lm_head());
}

/// Activations of all layers, and the gradients where these peak.
int64_t Estimator::activation_elements(const PeakBatch& largest) const {
  const auto element_size = static_cast<int64_t>(c10::elementSize(model_.dtype()));
  const int64_t rows = largest.tokens + largest.examples * model_.virtual_tokens();
  int64_t saved = rows * model_.config().hidden_size, working = 0;
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    const LayerElements elements =
        layer_elements(layers_[layer], model_.checkpointing()[layer], rows, largest.examples, element_size);
    saved += elements.saved;
    working = std::max(working, elements.working);
  }
  return saved + working;
}

/// Replaces gradients, activations and logits by those of an evaluation if that needs more: in its layers, which save
/// nothing, or after the last of them.
void Estimator::add_evaluation(MemoryEstimate& estimate, const PeakBatch& evaluated) const {
  const DecoderConfig& c = model_.config();
  const auto width = static_cast<int64_t>(c10::elementSize(model_.dtype())), wide = std::max<int64_t>(width, 4);
  const int64_t rows = evaluated.tokens + evaluated.examples * model_.virtual_tokens();
  int64_t forward_per_row = 0;
  for (const LayerCost& layer : layers_)
    for (const auto& sublayer : layer.sublayers)
      forward_per_row = std::max(forward_per_row, sublayer.cost.forward_per_row);
  const int64_t after_layers = rows * c.hidden_size * width;
  const int64_t in_layers = 3 * after_layers + rows * forward_per_row * width;
  const int64_t scores =  // logits and their logarithms in the accumulation dtype
      std::min(kLogitRows, evaluated.num_target_tokens) * c.vocab_size * ((width < 4 ? width : 0) + 2 * wide);
  uint64_t& gradients = at(estimate, MemoryComponent::gradients);
  uint64_t& activations = at(estimate, MemoryComponent::activations);
  uint64_t& logits = at(estimate, MemoryComponent::logits);
  const bool peaks_in_layers = in_layers > after_layers + scores;
  const auto peak = static_cast<uint64_t>(peaks_in_layers ? in_layers : after_layers + scores);
  if (peak <= gradients + activations + logits) return;
  gradients = 0;
  logits = peaks_in_layers ? 0 : static_cast<uint64_t>(scores);
  activations = peak - logits;
}

MemoryEstimate Estimator::estimate(const PeakBatch& largest, const PeakBatch& evaluated) const {
  const CausalLm& model = model_;
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
    at(estimate, MemoryComponent::optimizer) += optimizer_.state_bytes(tensor);
  }

  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype()));
  at(estimate, MemoryComponent::activations) = static_cast<uint64_t>(activation_elements(largest) * width);
  // Logits in the accumulation dtype, and their logarithms if the head has an adapter.
  const int64_t wide = std::max<int64_t>(width, 4),
                adapted = model.lm_head().adapted() || model.lm_head().uses_copies();
  at(estimate, MemoryComponent::logits) =
      static_cast<uint64_t>(std::min(kLogitRows, largest.num_target_tokens) * c.vocab_size *
                            ((width < 4 ? width : 0) + wide + adapted * wide));
  at(estimate, MemoryComponent::logits) += head_.bytes(std::min(kLogitRows, largest.num_target_tokens));
  add_evaluation(estimate, evaluated);

  if (!model.device().is_cpu()) return estimate;
  estimate.reserved = memory_stats(torch::kCPU).reserved;
  const uint64_t resident = resident_bytes();
  estimate.program = resident - std::min(resident, estimate.reserved + estimate.mapped);
  return estimate;
}

MemoryEstimate estimate_memory(const CausalLm& model, const Optimizer& optimizer, const PeakBatch& largest,
                               const PeakBatch& evaluated) {
  return Estimator(model, optimizer).estimate(largest, evaluated);
}

}  // namespace peft

#include "peft/estimate.h"

#include <torch/torch.h>

#include <numeric>

#include "model/kernels.h"

namespace peft {

namespace {

uint64_t& at(MemoryEstimate& estimate, MemoryComponent component) {
  return estimate.components[static_cast<std::size_t>(component)];
}

/// What the forward pass keeps for the backward one, elements for each token; see blocks.cpp and kernels.cpp.
int64_t saved_elements(const DecoderConfig& c) {
  const int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  const int64_t norms = 4 * c.hidden_size;           // input and output of both
  const int64_t attention = 2 * queries + 2 * keys;  // q, k, v and the mixed heads
  const int64_t mlp = 3 * c.intermediate_size;       // gate, up and their product
  return c.num_hidden_layers * (norms + attention + mlp) + c.hidden_size;
}

/// The largest that backward holds beside: the gradients inside one block's MLP.
int64_t working_elements(const DecoderConfig& c) { return 4 * c.intermediate_size + 2 * c.hidden_size; }

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

  int64_t ranks = 0;
  for (const auto& [name, tensor] : model.trainable()) {
    at(estimate, MemoryComponent::gradients) += tensor.nbytes();
    at(estimate, MemoryComponent::optimizer) +=
        static_cast<uint64_t>(optimizer.state_bytes_per_element() * static_cast<double>(tensor.numel()));
  }
  for (const Site* site : model.sites())
    for (const auto& layer : site->layers())
      if (const auto update = layer->low_rank()) ranks += update->A.size(0);

  const auto width = static_cast<int64_t>(c10::elementSize(model.dtype()));
  at(estimate, MemoryComponent::activations) =
      static_cast<uint64_t>(tokens * (saved_elements(c) + working_elements(c) + ranks) * width);
  at(estimate, MemoryComponent::logits) =
      static_cast<uint64_t>(std::min(kLogitRows, supervised) * c.vocab_size * (width + (width < 4 ? 4 : 0)));
  return estimate;
}

}  // namespace peft

// The decoder stack: from token ids to hidden states.
#include <torch/torch.h>

#include <algorithm>

#include "nn/prefix.h"
#include "ops/rope.h"
#include "peft/models/model.h"

namespace peft {

Tensor Model::run_layers(const PackedTokens& input, KeyValueCache* cache, int64_t num_virtual) const {
  const int64_t cached = cache == nullptr ? 0 : cache->length;
  Tensor x = embedding_->forward(input.ids), positions = input.positions + virtual_positions();
  if (num_virtual > 0) {
    const Tensor first = at::arange(virtual_positions() - num_virtual, virtual_positions(), positions.options());
    positions = prepend_to_each(first, positions, input.cu_seqlens);
    x = prepend_to_each(embedding_->virtual_token_rows().to(x.scalar_type()), x, input.cu_seqlens);
  }
  const Rotation rotation = rotate(*rope_, positions);
  const ForwardContext context{.cos = rotation.cos.to(x.scalar_type()),
                               .sin = rotation.sin.to(x.scalar_type()),
                               .cu_seqlens = shift_cu_seqlens(num_virtual, input.cu_seqlens),
                               .cache = cache,
                               .cached_tokens = cached > 0 ? virtual_tokens() + cached : 0};
  for (std::size_t layer = 0; layer < layers_.size(); ++layer) {
    ActivationCheckpointing checkpointing = cache == nullptr ? checkpointing_[layer] : ActivationCheckpointing::none;
    // Below the lowest adapter there is no backward pass to save anything for.
    if (checkpointing != ActivationCheckpointing::none && !x.requires_grad() &&
        std::ranges::none_of(layers_[layer]->sites(), &Site::has_adapter))
      checkpointing = ActivationCheckpointing::none;
    x = layers_[layer]->forward(x, context, checkpointing);
  }
  if (cache != nullptr) cache->length += input.ids.size(0);
  return x;
}

Tensor Model::hidden_states(const PackedTokens& input, KeyValueCache* cache) const {
  const int64_t num_virtual = cache == nullptr || cache->length == 0 ? virtual_tokens() : 0;
  const Tensor rows = run_layers(input, cache, num_virtual);
  return norm_->forward(num_virtual > 0 ? strip_from_each(num_virtual, rows, input.cu_seqlens) : rows);
}

int64_t Model::virtual_tokens() const { return embedding_->num_virtual_tokens(); }

int64_t Model::virtual_positions() const {
  int64_t keys = 0;
  for (const Attention* attention : attentions()) keys = std::max(keys, attention->num_prefix_keys());
  return keys + virtual_tokens();
}

}  // namespace peft

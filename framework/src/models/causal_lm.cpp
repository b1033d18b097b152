#include "peft/models/causal_lm.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "nn/prefix.h"

namespace peft {

CausalLm::CausalLm(DecoderConfig config) : Model(std::move(config)) {
  head_ = std::make_shared<Linear>(SiteInfo{"lm_head", "lm_head"}, this->config().hidden_size,
                                   this->config().vocab_size, false);
  add_head(head_);
}
CausalLm::~CausalLm() = default;

Tensor CausalLm::logits(const Tensor& hidden) const { return head_->forward(hidden); }

namespace {

/// Indices of the rows that predict a label, and these labels.
std::pair<Tensor, Tensor> rows_and_targets(const std::vector<int64_t>& cu_seqlens, const Tensor& labels) {
  Tensor next = at::full_like(labels, -100);
  const int64_t tokens = labels.size(0);
  next.narrow(0, 0, tokens - 1).copy_(labels.narrow(0, 1, tokens - 1));
  std::vector<int64_t> ends;
  for (std::size_t e = 1; e < cu_seqlens.size(); ++e)
    if (cu_seqlens[e] > 0) ends.push_back(cu_seqlens[e] - 1);
  next.index_fill_(0, torch::tensor(ends, torch::kLong).to(labels.device()), -100);
  const Tensor rows = at::nonzero(next != -100).flatten();
  return {rows, next.index_select(0, rows)};
}

}  // namespace

TargetRows CausalLm::target_rows(const PackedTokens& input, const Tensor& labels) const {
  const int64_t n = virtual_tokens();
  const Tensor ignored = at::full({n}, -100, labels.options());
  const auto [rows, targets] = rows_and_targets(shift_cu_seqlens(n, input.cu_seqlens),
                                                n > 0 ? prepend_to_each(ignored, labels, input.cu_seqlens) : labels);
  return {final_norm().forward(run_layers(input, nullptr, n).index_select(0, rows)), targets};
}

KeyValueCache CausalLm::make_cache(int64_t capacity) const {
  const torch::NoGradGuard no_grad;
  KeyValueCache cache;
  const auto options = torch::dtype(dtype()).device(device());
  for (const auto& layer : layers()) {
    const Attention* attention = layer->attention();
    TORCH_CHECK(attention != nullptr, "a layer without attention has no keys and values to cache");
    const int64_t length = attention->num_prefix_keys() + virtual_tokens() + capacity;
    const auto& shape = attention->shape();
    for (auto* side : {&cache.keys, &cache.values})
      side->push_back(torch::empty({shape.kv_heads, length, shape.head_dim}, options));
  }
  return cache;
}

}  // namespace peft

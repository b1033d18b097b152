#include "peft/nn/attention.h"

#include <torch/types.h>

#include <cmath>

#include "nn/module_check.h"
#include "nn/prefix.h"
#include "ops/rotary.h"
#include "peft/nn/block.h"

namespace peft {

Attention::Attention(const AttentionShape& shape,
                     const std::function<SiteInfo(const char* name, const char* role)>& site_info)
    : Site(site_info("self_attn", "attention")),
      shape_(shape),
      scale_(1 / std::sqrt(static_cast<double>(shape.head_dim))) {
  const int64_t queries = shape.heads * shape.head_dim, keys = shape.kv_heads * shape.head_dim;
  const auto linear = [&](const char* name, const char* role, int64_t in, int64_t out, bool bias) {
    return std::make_shared<Linear>(site_info(name, role), in, out, bias);
  };
  q_proj = linear("self_attn.q_proj", "q_proj", shape.hidden, queries, shape.qkv_bias);
  k_proj = linear("self_attn.k_proj", "k_proj", shape.hidden, keys, shape.qkv_bias);
  v_proj = linear("self_attn.v_proj", "v_proj", shape.hidden, keys, shape.qkv_bias);
  o_proj = linear("self_attn.o_proj", "o_proj", queries, shape.hidden, shape.out_bias);
}
Attention::~Attention() = default;

Tensor Attention::forward(const Tensor& input, const ForwardContext& context) const {
  return apply_layers(input, [&](const Tensor& x) {
    return attend(q_proj->forward(x), k_proj->forward(x), v_proj->forward(x), context);
  });
}

Tensor Attention::attend(const Tensor& queries, const Tensor& keys, const Tensor& values,
                         const ForwardContext& context) const {
  const auto heads = [&](const Tensor& t) { return t.view({t.size(0), -1, shape_.head_dim}); };
  const Tensor q = apply_rotary(heads(queries), context.cos, context.sin);
  const Tensor k = apply_rotary(heads(keys), context.cos, context.sin);
  const Tensor v = heads(values);
  Tensor out = o_proj->forward(mix(q, k, v, context));
  for (const VirtualKeys* prefix : prefixes(/*gated=*/true))
    out = out + o_proj->forward(
                    gated_attention(checked_keys_and_values(*this, *prefix), checked_gate(*this, *prefix), q, scale_));
  return out;
}

namespace {

void check_capacity(const Tensor& cache, int64_t tokens) {
  TORCH_CHECK(tokens <= cache.size(1), "the cache has room for ", cache.size(1), " tokens, not for ", tokens);
}

/// Writes `prefix`, which may be undefined, and the rows after it to an empty cache.
void fill_cache(const Tensor& cache, const Tensor& prefix, const Tensor& rows) {
  const int64_t n = prefix.defined() ? prefix.size(0) : 0;
  check_capacity(cache, n + rows.size(0));
  if (n > 0) cache.narrow(1, 0, n).copy_(prefix.transpose(0, 1));
  cache.narrow(1, n, rows.size(0)).copy_(rows.transpose(0, 1));
}

}  // namespace

Tensor Attention::mix(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context) const {
  if (context.cached_tokens > 0) return mix_cached(q, k, v, context);
  const KeysAndValues prefix = joined_prefix();
  if (context.cache != nullptr) {
    const auto index = static_cast<std::size_t>(layer().value());
    fill_cache(context.cache->keys[index], prefix.keys, k);
    fill_cache(context.cache->values[index], prefix.values, v);
  }
  return attention_with_prefix(prefix, q, k, v, context.cu_seqlens, scale_);
}

Tensor Attention::mix_cached(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context) const {
  const int64_t cached = num_prefix_keys() + context.cached_tokens, tokens = q.size(0), all = cached + tokens;
  const auto index = static_cast<std::size_t>(layer().value());
  const Tensor &keys = context.cache->keys[index], &values = context.cache->values[index];
  check_capacity(keys, all);
  keys.narrow(1, cached, tokens).copy_(k.transpose(0, 1));
  values.narrow(1, cached, tokens).copy_(v.transpose(0, 1));
  std::optional<Tensor> mask;
  if (tokens > 1) mask = at::ones({tokens, all}, q.options().dtype(torch::kBool)).tril(cached);
  const auto batch = [&](const Tensor& t) { return t.narrow(1, 0, all).unsqueeze(0); };
  const Tensor out = at::scaled_dot_product_attention(q.transpose(0, 1).unsqueeze(0), batch(keys), batch(values), mask,
                                                      0, false, scale_, /*enable_gqa=*/true);
  return out.squeeze(0).transpose(0, 1).reshape({tokens, -1});
}

void Attention::add_kv_prefix(const std::string& adapter, std::shared_ptr<VirtualKeys> prefix) {
  add_adapter_module(adapter, prefix);
  kv_prefixes_.push_back(std::move(prefix));
}

std::vector<const VirtualKeys*> Attention::prefixes(bool gated) const {
  std::vector<const VirtualKeys*> found;
  if (!adapted()) return found;
  for (const auto& prefix : kv_prefixes_)
    if (prefix->gate().defined() == gated) found.push_back(prefix.get());
  return found;
}

KeysAndValues Attention::joined_prefix() const {
  std::vector<Tensor> keys, values;
  for (const VirtualKeys* prefix : prefixes(/*gated=*/false)) {
    const KeysAndValues tensors = checked_keys_and_values(*this, *prefix);
    keys.push_back(tensors.keys);
    values.push_back(tensors.values);
  }
  return {concatenated(keys), concatenated(values)};
}

int64_t Attention::num_prefix_keys() const {
  int64_t count = 0;
  for (const VirtualKeys* prefix : prefixes(/*gated=*/false)) count += prefix->count();
  return count;
}

std::vector<int64_t> Attention::num_gated_keys() const {
  std::vector<int64_t> counts;
  for (const VirtualKeys* prefix : prefixes(/*gated=*/true)) counts.push_back(prefix->count());
  return counts;
}

}  // namespace peft

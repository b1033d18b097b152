#include "models/blocks.h"

#include <torch/torch.h>

#include <cmath>

#include "nn/adapted_linear.h"
#include "nn/prefix.h"
#include "ops/kernels.h"
#include "ops/recompute.h"

namespace peft {

SiteInfo LayerPosition::site(const std::string& name, const std::string& role) const {
  const auto path = [&](int64_t layer) { return "model.layers." + std::to_string(layer) + "." + name; };
  return {.path = path(index), .role = role, .layer = index, .checkpoint_path = path(source)};
}

Model::Attention::Attention(const DecoderConfig& c, const LayerPosition& layer)
    : Site(layer.site("self_attn", "attention")),
      head_dim_(c.head_dim),
      scale_(1 / std::sqrt(static_cast<double>(c.head_dim))) {
  const int64_t queries = c.num_attention_heads * c.head_dim, keys = c.num_key_value_heads * c.head_dim;
  q_proj = std::make_shared<Linear>(layer.site("self_attn.q_proj", "q_proj"), c.hidden_size, queries, c.attention_bias);
  k_proj = std::make_shared<Linear>(layer.site("self_attn.k_proj", "k_proj"), c.hidden_size, keys, c.attention_bias);
  v_proj = std::make_shared<Linear>(layer.site("self_attn.v_proj", "v_proj"), c.hidden_size, keys, c.attention_bias);
  o_proj =
      std::make_shared<Linear>(layer.site("self_attn.o_proj", "o_proj"), queries, c.hidden_size, c.attention_out_bias);
}
Model::Attention::~Attention() = default;

Tensor Model::Attention::forward(const Tensor& input, const ForwardContext& context, std::size_t layer) const {
  return apply_layers(input, [&](const Tensor& x) {
    return attend(q_proj->forward(x), k_proj->forward(x), v_proj->forward(x), context, layer);
  });
}

Tensor Model::Attention::attend(const Tensor& queries, const Tensor& keys, const Tensor& values,
                                const ForwardContext& context, std::size_t layer) const {
  const auto heads = [&](const Tensor& t) { return t.view({t.size(0), -1, head_dim_}); };
  const Tensor q = apply_rotary(heads(queries), context.cos, context.sin);
  const Tensor k = apply_rotary(heads(keys), context.cos, context.sin);
  const Tensor v = heads(values);
  Tensor out = o_proj->forward(mix(q, k, v, context, layer));
  for (const VirtualKeys* own : gated_keys(*this)) out = out + o_proj->forward(gated_attention(*own, q, scale_));
  return out;
}

Tensor Model::Attention::mix(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context,
                             std::size_t layer) const {
  if (context.before > 0) return mix_cached(q, k, v, context, layer);
  const KeysAndValues front = prefix_kv(*this);
  if (context.cache != nullptr) {
    const auto keep = [](const Tensor& cache, const Tensor& first, const Tensor& own) {
      const int64_t n = first.defined() ? first.size(0) : 0;
      TORCH_CHECK(n + own.size(0) <= cache.size(1), "the cache holds ", cache.size(1), " tokens; ", n + own.size(0),
                  " are too many");
      if (n > 0) cache.narrow(1, 0, n).copy_(first.transpose(0, 1));
      cache.narrow(1, n, own.size(0)).copy_(own.transpose(0, 1));
    };
    keep(context.cache->keys[layer], front.keys, k);
    keep(context.cache->values[layer], front.values, v);
  }
  return attention_with_prefix(front, q, k, v, context.cu_seqlens, scale_);
}

/// The new keys and values are appended to those in the cache, and every key so far is seen.
Tensor Model::Attention::mix_cached(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context,
                                    std::size_t layer) const {
  const int64_t before = keys_in_front(*this) + context.before, fresh = q.size(0), all = before + fresh;
  const Tensor &keys = context.cache->keys[layer], &values = context.cache->values[layer];
  TORCH_CHECK(all <= keys.size(1), "the cache holds ", keys.size(1), " tokens; ", all, " are too many");
  keys.narrow(1, before, fresh).copy_(k.transpose(0, 1));
  values.narrow(1, before, fresh).copy_(v.transpose(0, 1));
  std::optional<Tensor> mask;
  if (fresh > 1) mask = at::ones({fresh, all}, q.options().dtype(torch::kBool)).tril(before);
  const auto batch = [&](const Tensor& t) { return t.narrow(1, 0, all).unsqueeze(0); };
  const Tensor out = at::scaled_dot_product_attention(q.transpose(0, 1).unsqueeze(0), batch(keys), batch(values), mask,
                                                      0, false, scale_, /*enable_gqa=*/true);
  return out.squeeze(0).transpose(0, 1).reshape({fresh, -1});
}

Model::Mlp::Mlp(const DecoderConfig& c, const LayerPosition& layer)
    : Site(layer.site("mlp", "mlp")),
      gate_proj(std::make_shared<Linear>(layer.site("mlp.gate_proj", "gate_proj"), c.hidden_size, c.intermediate_size,
                                         c.mlp_bias)),
      up_proj(std::make_shared<Linear>(layer.site("mlp.up_proj", "up_proj"), c.hidden_size, c.intermediate_size,
                                       c.mlp_bias)),
      down_proj(std::make_shared<Linear>(layer.site("mlp.down_proj", "down_proj"), c.intermediate_size, c.hidden_size,
                                         c.mlp_bias)) {}
Model::Mlp::~Mlp() = default;

Tensor Model::Mlp::forward(const Tensor& input) const {
  return apply_layers(
      input, [&](const Tensor& x) { return down_proj->forward(swiglu(gate_proj->forward(x), up_proj->forward(x))); });
}

Model::Block::Block(const DecoderConfig& c, const LayerPosition& layer)
    : input_layernorm(
          std::make_shared<Norm>(layer.site("input_layernorm", "input_layernorm"), c.hidden_size, c.rms_norm_eps)),
      post_attention_layernorm(std::make_shared<Norm>(
          layer.site("post_attention_layernorm", "post_attention_layernorm"), c.hidden_size, c.rms_norm_eps)),
      self_attn(std::make_shared<Attention>(c, layer)),
      mlp(std::make_shared<Mlp>(c, layer)),
      eps_(c.rms_norm_eps) {}

namespace {

/// All of them as adapted_linear(), if they and what they stand behind are nothing else.
std::optional<std::vector<AdaptedLinear>> adapted_linears(const std::vector<const Linear*>& sites, const Norm& before,
                                                          const Site& around) {
  if (before.has_adapter() || around.adapted()) return std::nullopt;
  std::vector<AdaptedLinear> all;
  for (const Linear* site : sites) {
    const auto linear = adapted_linear(*site);
    if (!linear) return std::nullopt;
    all.push_back(*linear);
  }
  return all;
}

}  // namespace

Tensor Model::Block::attention_sublayer(const Tensor& x, const ForwardContext& context, std::size_t layer) const {
  const Attention& a = *self_attn;
  if (fused)
    if (const auto qkv = adapted_linears({a.q_proj.get(), a.k_proj.get(), a.v_proj.get()}, *input_layernorm, a)) {
      const auto y = normed_linears(x, input_layernorm->frozen().weight, eps_, *qkv);
      return y[0] + a.attend(y[1], y[2], y[3], context, layer);
    }
  return x + a.forward(input_layernorm->forward(x), context, layer);
}

Tensor Model::Block::mlp_sublayer(const Tensor& x) const {
  const Mlp& m = *mlp;
  if (fused)
    if (const auto all =
            adapted_linears({m.gate_proj.get(), m.up_proj.get(), m.down_proj.get()}, *post_attention_layernorm, m)) {
      const auto y = normed_linears(x, post_attention_layernorm->frozen().weight, eps_, {(*all)[0], (*all)[1]});
      return y[0] + gated_linear(y[1], y[2], (*all)[2]);
    }
  return x + m.forward(post_attention_layernorm->forward(x));
}

Tensor Model::Block::forward(const Tensor& x, const ForwardContext& context, std::size_t layer,
                             ActivationCheckpointing keeping) const {
  switch (context.cache == nullptr ? keeping : ActivationCheckpointing::none) {
    case ActivationCheckpointing::none:
      return mlp_sublayer(attention_sublayer(x, context, layer));
    case ActivationCheckpointing::selective:
      return recomputed(attention_sublayer(x, context, layer), [this](const Tensor& v) { return mlp_sublayer(v); });
    case ActivationCheckpointing::full:
      return recomputed(
          x, [this, context, layer](const Tensor& v) { return mlp_sublayer(attention_sublayer(v, context, layer)); });
  }
  __builtin_unreachable();
}

std::vector<std::shared_ptr<Site>> Model::Block::sites() const {
  return {
      input_layernorm,          self_attn, self_attn->q_proj, self_attn->k_proj, self_attn->v_proj, self_attn->o_proj,
      post_attention_layernorm, mlp,       mlp->gate_proj,    mlp->up_proj,      mlp->down_proj};
}

}  // namespace peft

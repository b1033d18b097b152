#pragma once

#include "peft/nn/linear.h"
#include "peft/nn/virtual_tokens.h"

namespace peft {

struct ForwardContext;

/// Shape of an attention.
struct AttentionShape {
  int64_t hidden, heads, kv_heads, head_dim;
  bool qkv_bias, out_bias;
};

/// Causal grouped-query attention with rotary positions (Vaswani et al. 2017, Ainslie et al. 2023, Su et al. 2021).
class PEFT_API Attention : public Site {
 public:
  /// `site_info`(name, role) describes the site with that name after the layer's path.
  Attention(const AttentionShape& shape, const std::function<SiteInfo(const char* name, const char* role)>& site_info);
  ~Attention() override;
  /// x: [T, hidden] → [T, hidden].
  Tensor forward(const Tensor& x, const ForwardContext& context) const;
  /// forward() from the outputs of q_proj, k_proj and v_proj [T, heads · head_dim] on.
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context) const;
  std::vector<std::string> parameter_names() const override { return {}; }
  const AttentionShape& shape() const { return shape_; }

  /// Adds keys and values that every token attends to, after those of earlier adapters.
  void add_kv_prefix(const std::string& adapter, std::shared_ptr<VirtualKeys> prefix);
  /// Number of keys before each example's own, without gated ones; 0 while adapters are disabled.
  int64_t num_prefix_keys() const;
  /// Number of keys of each gated prefix.
  std::vector<int64_t> num_gated_keys() const;

  // Never null.
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, o_proj;

 private:
  /// Heads from q [T, heads, D], k and v [T, kv_heads, D]: [T, heads · D].
  Tensor mix(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context) const;
  /// mix() for tokens that follow others in the cache.
  Tensor mix_cached(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context) const;
  /// The prefixes with or without a gate; none while adapters are disabled.
  std::vector<const VirtualKeys*> prefixes(bool gated) const;
  KeysAndValues joined_prefix() const;
  AttentionShape shape_;
  double scale_;
  std::vector<std::shared_ptr<VirtualKeys>> kv_prefixes_;
};

}  // namespace peft

#pragma once

#include <string>
#include <vector>

#include "peft/models/decoder.h"

namespace peft {

/// What every block of one forward pass shares.
struct ForwardContext {
  Tensor cos, sin;  ///< [T, head_dim / 2]
  std::vector<int64_t> cu_seqlens;
  KeyValueCache* cache;  ///< null in training
  int64_t before;        ///< rows of the sequence that are in the cache already, without an attention's own front
};

/// Which decoder layer a block is, and which layer of the pretrained model has its weights.
struct LayerPosition {
  int64_t index, source;
  /// `name`: the site's path behind the layer's.
  SiteInfo site(const std::string& name, const std::string& role) const;
};

/// Grouped-query attention with rotary positions (Vaswani et al. 2017, Ainslie et al. 2023, Su et al. 2021).
struct Model::Attention : Site {
  Attention(const DecoderConfig& config, const LayerPosition& layer);
  ~Attention() override;
  /// x: [T, hidden] → [T, hidden].
  Tensor forward(const Tensor& x, const ForwardContext& context, std::size_t layer) const;
  /// The same from the outputs of q_proj, k_proj and v_proj on: [T, heads · head_dim].
  Tensor attend(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context,
                std::size_t layer) const;
  std::vector<std::string> parameter_names() const override { return {}; }
  std::shared_ptr<Linear> q_proj, k_proj, v_proj, o_proj;

 private:
  Tensor mix(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context, std::size_t layer) const;
  Tensor mix_cached(const Tensor& q, const Tensor& k, const Tensor& v, const ForwardContext& context,
                    std::size_t layer) const;
  int64_t head_dim_;
  double scale_;
};

/// down(silu(gate(x)) · up(x)) (Shazeer 2020).
struct Model::Mlp : Site {
  Mlp(const DecoderConfig& config, const LayerPosition& layer);
  ~Mlp() override;
  Tensor forward(const Tensor& x) const;
  std::vector<std::string> parameter_names() const override { return {}; }
  std::shared_ptr<Linear> gate_proj, up_proj, down_proj;
};

/// x + attention(norm(x)), then x + mlp(norm(x)).
struct Model::Block {
  Block(const DecoderConfig& config, const LayerPosition& layer);
  /// As `keeping` says, parts run again in the backward pass.
  Tensor forward(const Tensor& x, const ForwardContext& context, std::size_t layer,
                 ActivationCheckpointing keeping) const;
  /// In the order of the forward pass.
  std::vector<std::shared_ptr<Site>> sites() const;
  std::shared_ptr<Norm> input_layernorm, post_attention_layernorm;
  std::shared_ptr<Attention> self_attn;
  std::shared_ptr<Mlp> mlp;
  bool fused = true;  ///< norms and what follows them run as one where all of it is frozen or low-rank

 private:
  /// Both with the residual added.
  Tensor attention_sublayer(const Tensor& x, const ForwardContext& context, std::size_t layer) const;
  Tensor mlp_sublayer(const Tensor& x) const;
  double eps_;
};

}  // namespace peft

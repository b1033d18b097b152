#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/ops/low_rank.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// What a site's own layer computes, as weights: y = x·Wᵀ + b for Linear, rows of W for Embedding.
struct WeightAndBias {
  Tensor weight;  ///< Linear: [out, in]; Embedding: [vocabulary, hidden]; Norm: [hidden]
  Tensor bias;    ///< [out], or undefined
};

/// The frozen layer, or the next adapter in.
using Next = std::function<Tensor(const Tensor&)>;

/// What a method puts around one site. Its parameters are the trainable ones; their names are the adapter file's
/// keys behind the site's path (`lora_A.weight`: a child module `lora_A` with a parameter `weight`).
class PEFT_API AdapterLayer : public torch::nn::Module {
 public:
  ~AdapterLayer() override;
  /// x: [..., features of the site's input]. LoRA: next(x) + scale · B(A(dropout(x))).
  virtual Tensor forward(const Tensor& x, const Next& next) = 0;
  /// Adds the method into `affine` (fp32 or wider, may be changed in place). False: no weights express it.
  virtual bool merge_into(WeightAndBias& weights) const;
  /// What this layer is, where it is just that (no active dropout, no bias); forward stays its definition.
  virtual std::optional<LowRank> as_lora() const;
  /// True: forward computes with the site's frozen weights, so no other adapter may stand between it and them.
  virtual bool innermost() const { return false; }
  /// On a head that shares its weight with the embedding: the embedding's layer whose change this one is too, so that
  /// the two stay one weight.
  virtual const AdapterLayer* tied_to() const { return nullptr; }
};

/// Where a site is in its model, and what it does there.
struct SiteInfo {
  std::string path;                   ///< Hugging Face module path: "model.layers.3.self_attn.q_proj"
  std::string role = {};              ///< what it does in its layer or model: see Site::role()
  std::optional<int64_t> layer = {};  ///< index of its decoder layer, from 0
  std::string checkpoint_path = {};   ///< path of its weights in the pretrained model's files; "": `path`
};

/// A module of the model that adapters can wrap (HF PEFT: target module).
class PEFT_API Site : public torch::nn::Module {
 public:
  explicit Site(SiteInfo info);
  ~Site() override;
  /// Hugging Face module path.
  const std::string& path() const { return info_.path; }
  /// What the site does in its layer: "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
  /// "input_layernorm", "post_attention_layernorm", "attention", "mlp"; outside of the layers "embedding", "norm",
  /// "lm_head". The set is open: a layer of another family brings its own roles.
  const std::string& role() const { return info_.role; }
  /// Index of the decoder layer that the site is in; none for what is outside of the layers.
  std::optional<int64_t> layer() const { return info_.layer; }
  /// Path of the site's weights in the pretrained model's files. Replicated layers share one.
  const std::string& checkpoint_path() const { return info_.checkpoint_path; }

  /// Puts a layer around this site; the first attached is the outermost. Throws ConfigError where one that is there
  /// must be the innermost.
  void attach(const std::string& adapter, std::shared_ptr<AdapterLayer> layer);
  /// Takes one away again.
  void detach(const std::shared_ptr<AdapterLayer>& layer);
  const std::vector<std::shared_ptr<AdapterLayer>>& layers() const { return layers_; }
  /// Makes one of the site's own parameters ("weight", "bias") trainable: a copy in `dtype` is used in its place,
  /// the frozen original stays untouched. Returns the copy, a former one if it is there. A missing bias starts as
  /// zeros. An adapter calls its own Adapter::make_trainable.
  Tensor make_trainable(const std::string& parameter, torch::Dtype dtype);
  /// For a head that shares its weight with an embedding: a trained copy of the leader's weight is used here too. What
  /// is shared stays shared; the copy itself is the leader's.
  void tie_weight_to(const Site& embedding) { tied_to_ = &embedding; }
  bool has_tied_weight() const { return tied_to_ != nullptr; }
  /// Whether trained copies stand in the place of frozen parameters here.
  bool uses_copies() const { return !copies_.empty() || (has_tied_weight() && tied_to_->copies_.contains("weight")); }
  /// Everything that adapters put here, as name behind the site's path → tensor: copies, then layers' parameters.
  NamedTensors adapter_tensors() const;
  /// Trainable copies by parameter name.
  const std::map<std::string, Tensor>& copies() const { return copies_; }
  /// Off: the site computes as if nothing had ever been attached.
  void enable_adapters(bool on) { enabled_ = on; }
  bool adapted() const { return enabled_ && !layers_.empty(); }
  /// Whether an adapter put anything here, layers or copies, enabled or not.
  bool has_adapter() const { return !layers_.empty() || !copies_.empty(); }
  /// `base`, the site's own weights in any dtype, with the copies in their place and every layer folded in, as new
  /// tensors. Nothing where a layer has no weights to fold into, or says that none express it.
  std::optional<WeightAndBias> merged_weight(const WeightAndBias& base) const;
  /// Off: layers that could be fused run their own forward, as a check of the one against the other.
  void enable_fusion(bool on) { fused_ = on; }
  /// The frozen parameters as loaded.
  const WeightAndBias& frozen() const { return frozen_; }
  /// Hands the site its frozen parameters (requires_grad off).
  void set_frozen(WeightAndBias weights);
  /// Names of the frozen parameters a checkpoint must hold for this site.
  virtual std::vector<std::string> parameter_names() const;

 protected:
  /// The weight or bias that forward has to use, in the dtype of the frozen one.
  Tensor weight() const;
  Tensor bias() const;
  /// Runs the attached layers around `base`.
  Tensor apply_layers(const Tensor& x, const Next& base) const;
  bool fused() const { return fused_; }

 private:
  Tensor current(const std::string& name, const Tensor& frozen) const;
  SiteInfo info_;
  WeightAndBias frozen_;
  std::map<std::string, Tensor> copies_;
  const Site* tied_to_ = nullptr;
  std::vector<std::shared_ptr<AdapterLayer>> layers_;
  bool enabled_ = true;
  bool fused_ = true;
};

/// y = x·Wᵀ + b, x: [..., in].
class PEFT_API Linear : public Site {
 public:
  Linear(SiteInfo info, int64_t in, int64_t out, bool bias);
  ~Linear() override;
  Tensor forward(const Tensor& x) const;
  int64_t in_features() const { return in_; }
  int64_t out_features() const { return out_; }
  std::vector<std::string> parameter_names() const override;

 private:
  int64_t in_, out_;
  bool has_bias_;
};

/// Rows of W: ids [...] (int64) → [..., hidden].
class PEFT_API Embedding : public Site {
 public:
  Embedding(SiteInfo info, int64_t rows, int64_t hidden);
  ~Embedding() override;
  Tensor forward(const Tensor& ids) const;
  int64_t rows() const { return rows_; }
  int64_t hidden() const { return hidden_; }

 private:
  int64_t rows_, hidden_;
};

/// RMSNorm: x / sqrt(mean(x²) + eps) · w, computed in fp32 (Zhang & Sennrich 2019).
class PEFT_API Norm : public Site {
 public:
  Norm(SiteInfo info, int64_t hidden, double eps);
  ~Norm() override;
  Tensor forward(const Tensor& x) const;
  int64_t hidden() const { return hidden_; }

 private:
  int64_t hidden_;
  double eps_;
};

}  // namespace peft

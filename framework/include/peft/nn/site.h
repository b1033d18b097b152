#pragma once

#include <torch/nn/module.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/ops/frozen_weight.h"
#include "peft/ops/low_rank.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Weights of one site: y = x·Wᵀ + b for a Linear, rows of W for an Embedding.
struct WeightAndBias {
  Tensor weight;  ///< Linear: [out, in]; Embedding: [vocabulary, hidden]; Norm: [hidden]
  Tensor bias;    ///< [out], or undefined
};

/// The next inner adapter layer, or the frozen module.
using Next = std::function<Tensor(const Tensor&)>;

/// What an adapter adds to a site. Its parameters are trainable; the path of the site and their names make the keys of
/// the adapter file (`lora_A.weight`: a child module `lora_A` with a parameter `weight`).
class PEFT_API AdapterModule : public torch::nn::Module {
 public:
  ~AdapterModule() override;
};

/// An AdapterModule that wraps the computation of its site.
class PEFT_API AdapterLayer : public AdapterModule {
 public:
  ~AdapterLayer() override;
  /// x: [..., input features of the site]. LoRA: next(x) + scale · B(A(dropout(x))).
  virtual Tensor forward(const Tensor& x, const Next& next) = 0;
  /// Adds the layer's update to `weights`, which are fp32 or wider and may be changed in place. Returns false if no
  /// weights can express it.
  virtual bool merge_into(WeightAndBias& weights) const;
  /// The layer's update as scale · B·A, if it has exactly that form (no active dropout, no bias). forward() remains the
  /// definition; this only permits fusing and conversion to LoRA.
  virtual std::optional<LowRank> as_lora() const;
  /// True if forward() computes with the site's frozen weights, so that no other layer may be between it and them.
  virtual bool innermost() const { return false; }
  /// For a layer on an lm_head that shares its weight with the embedding: the layer on the embedding whose update this
  /// one repeats, so that the two remain one weight; null if it is not such a layer.
  virtual const AdapterLayer* tied_to() const { return nullptr; }
};

/// Where a site is in its model, and what it does there.
struct SiteInfo {
  std::string path;                   ///< Hugging Face module path: "model.layers.3.self_attn.q_proj"
  std::string role = {};              ///< see Site::role()
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
  /// "lm_head". The set is open: layers of another family bring their own roles.
  const std::string& role() const { return info_.role; }
  /// Index of the decoder layer that the site is in; nullopt outside of the layers.
  std::optional<int64_t> layer() const { return info_.layer; }
  /// Path of the site's weights in the pretrained model's files. Replicated layers share one.
  const std::string& checkpoint_path() const { return info_.checkpoint_path; }

  // Base weights.

  /// Null if the site has no weights (an attention, an MLP), or before they are loaded.
  const std::shared_ptr<const FrozenWeight>& base_weight() const { return base_weight_; }
  /// Undefined if the site has no bias.
  const Tensor& base_bias() const { return base_bias_; }
  /// Gives the site its frozen weights.
  void load_base_weight(std::shared_ptr<const FrozenWeight> weight, Tensor bias = {});
  void load_base_weight(const WeightAndBias& dense);
  /// Values of the base weight, in dtype() or another floating-point dtype; see FrozenWeight::dense(). Undefined
  /// without a weight.
  Tensor dense() const;
  Tensor dense(torch::Dtype dtype) const;
  /// dense() and base_bias().
  WeightAndBias dense_base() const { return {dense(), base_bias_}; }
  /// Shape, dtype and device of the base weight. Throws c10::Error without one.
  std::vector<int64_t> weight_sizes() const;
  torch::Dtype dtype() const;
  torch::Device device() const;
  /// Names of the frozen parameters that the pretrained model's files must hold for this site.
  virtual std::vector<std::string> parameter_names() const;

  // Adapters.

  /// Wraps the site in `layer`; the first one attached is the outermost. Throws ConfigError if an attached layer has to
  /// be the innermost.
  void attach(const std::string& adapter, std::shared_ptr<AdapterLayer> layer);
  void detach(const std::shared_ptr<AdapterLayer>& layer);
  const std::vector<std::shared_ptr<AdapterLayer>>& layers() const { return layers_; }
  /// Layers, prefixes and virtual tokens, in the order in which they were attached.
  const std::vector<std::shared_ptr<AdapterModule>>& adapter_modules() const { return modules_; }
  /// Makes one of the site's own parameters ("weight", "bias") trainable: a copy in `dtype` replaces it, and the
  /// frozen one does not change. Returns the copy; the existing one if there is one. A missing bias starts as zeros.
  /// Adapters call their own Adapter::make_trainable.
  Tensor make_trainable(const std::string& parameter, torch::Dtype dtype);
  /// Trainable copies by parameter name.
  const std::map<std::string, Tensor>& copies() const { return copies_; }
  /// For an lm_head that shares its weight with an embedding: uses the embedding's trainable copy of the weight too.
  /// The copy belongs to the embedding.
  void tie_weight_to(const Site& embedding) { tied_to_ = &embedding; }
  bool has_tied_weight() const { return tied_to_ != nullptr; }
  /// True if trainable copies replace frozen parameters of this site.
  bool uses_copies() const { return !copies_.empty() || (has_tied_weight() && tied_to_->copies_.contains("weight")); }
  /// All tensors of adapters on this site, by the name that follows the site's path: copies, then those of the modules.
  NamedTensors adapter_tensors() const;
  /// Disabled: the site computes as if no adapter were attached.
  void enable_adapters(bool on) { enabled_ = on; }
  bool adapted() const { return enabled_ && !modules_.empty(); }
  /// True if the site has an adapter's module or copy, enabled or not.
  bool has_adapter() const { return !modules_.empty() || !copies_.empty(); }
  /// `base` (the site's own weights, in any dtype) with copies replacing frozen parameters and every layer merged, as
  /// new tensors; nullopt if a layer cannot be merged or the site has no weights.
  std::optional<WeightAndBias> merged_weight(const WeightAndBias& base) const;
  /// Disabled: layers that could be fused run their own forward(), to check the fused path.
  void enable_fusion(bool on) { fused_ = on; }
  /// Runs the attached layers around `base`. The only place that calls AdapterLayer::forward.
  Tensor apply_layers(const Tensor& x, const Next& base) const;

 protected:
  /// Registers a module that is not a layer; the derived class runs it. Throws ConfigError like attach().
  void add_adapter_module(const std::string& adapter, std::shared_ptr<AdapterModule> module);
  /// The trainable copy that replaces the base weight or bias, in the base's dtype; undefined if there is none.
  Tensor active_copy(const std::string& parameter) const;
  /// The bias that forward has to use.
  Tensor active_bias() const;
  bool fused() const { return fused_; }

 private:
  SiteInfo info_;
  std::shared_ptr<const FrozenWeight> base_weight_;
  Tensor base_bias_;
  std::map<std::string, Tensor> copies_;
  const Site* tied_to_ = nullptr;
  std::vector<std::shared_ptr<AdapterModule>> modules_;
  std::vector<std::shared_ptr<AdapterLayer>> layers_;  ///< those of modules_ that are layers
  bool enabled_ = true;
  bool fused_ = true;
};

}  // namespace peft

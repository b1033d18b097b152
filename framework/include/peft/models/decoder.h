#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "peft/architecture/config.h"
#include "peft/base/export.h"
#include "peft/nn/site.h"

namespace peft {

class PretrainedModel;
struct RopeFrequencies;

/// Tokens of one or more examples laid end to end, on the model's device.
struct PackedTokens {
  Tensor ids;                       ///< [T] int64
  Tensor positions;                 ///< [T] int64, restarting in each example
  std::vector<int64_t> cu_seqlens;  ///< [examples + 1] offsets into ids, on the host
};

/// Keys and values of one sequence while it is generated.
struct KeyValueCache {
  std::vector<Tensor> keys, values;  ///< per layer [kv_heads, virtual ones + capacity, head_dim]
  int64_t length = 0;                ///< tokens in it, adapters' virtual ones not counted
};

/// What of a layer's activations its backward pass computes anew instead of finding it kept (activation checkpointing,
/// Chen et al. 2016): nothing, the MLP's, or all but the layer's input. Results are the same to the last bit.
enum class ActivationCheckpointing { none, selective, full };

/// A causal language model made of sites. Always held by shared_ptr.
class PEFT_API Model : public torch::nn::Module {
 public:
  explicit Model(DecoderConfig config);
  ~Model() override;
  const DecoderConfig& config() const { return config_; }
  /// Where the weights come from, for what is written about them.
  struct Origin {
    std::string path;
    std::string fingerprint;  ///< PretrainedModel::fingerprint
    std::shared_ptr<const PretrainedModel> checkpoint = {};
  };
  const Origin& origin() const { return origin_; }
  void set_origin(Origin origin) { origin_ = std::move(origin); }
  /// Whether embedding and head have another length than in the checkpoint's files; see with_vocabulary().
  bool vocabulary_resized() const;

  /// HF PEFT's replicate_layers: the layers become those of the ranges [first, last), one after the other, numbered
  /// anew; what comes twice shares its frozen weights. Before anything is attached: Site pointers end. Throws
  /// ConfigError for what is no range of the model's layers, and where an adapter is there.
  void replicate_layers(const std::vector<std::pair<int64_t, int64_t>>& ranges);
  bool replicated() const { return replicated_; }
  /// For each layer, the checkpoint's layer whose weights it has.
  const std::vector<int64_t>& source_layers() const { return source_layers_; }

  /// Final hidden states, after the last norm: [T, hidden]. With a cache: one sequence, appended to it.
  Tensor hidden_states(const PackedTokens& input, KeyValueCache* cache = nullptr) const;
  /// Rows of hidden states → [rows, vocabulary].
  Tensor logits(const Tensor& hidden) const;
  /// Rows of hidden() that have something to predict, [n, hidden], and what, [n]. A label is predicted by the row
  /// before it in its own example; behind virtual tokens, the first one by the last of these.
  struct TargetRows {
    Tensor hidden, targets;
  };
  TargetRows target_rows(const PackedTokens& input, const Tensor& labels) const;
  /// For `capacity` tokens, with places for the adapters' virtual ones besides.
  KeyValueCache make_cache(int64_t capacity) const;
  /// Rows that adapters put in front of each example, and the positions that these and keys in front take.
  int64_t virtual_tokens() const;
  int64_t virtual_positions() const;

  /// All sites, in the order of the forward pass.
  const std::vector<Site*>& sites() const { return sites_; }
  Site* find(const std::string& path) const;  ///< null if there is none
  std::vector<Site*> attentions() const;      ///< one for each layer, from the first: "model.layers.0.self_attn"
  std::vector<Site*> mlps() const;            ///< "model.layers.0.mlp"
  Embedding& embedding() const { return *embedding_; }
  Linear& lm_head() const { return *head_; }  ///< shares the embedding's weight where the two are tied
  /// All that adapters put on sites, as "site path.name" → tensor, in model order.
  NamedTensors adapter_tensors() const;
  /// Those of them that train.
  NamedTensors trainable() const;
  /// The frozen base, as checkpoint name → tensor, each once: a tied head is left out.
  NamedTensors frozen() const;
  void enable_adapters(bool on);
  void enable_fusion(bool on);
  /// One for each layer, from the first; `none` everywhere unless set.
  void set_checkpointing(std::vector<ActivationCheckpointing> of_layers);
  const std::vector<ActivationCheckpointing>& checkpointing() const { return checkpointing_; }
  torch::Device device() const;
  torch::Dtype dtype() const;

 private:
  struct Attention;
  struct Mlp;
  struct Block;
  void register_sites();
  Tensor body(const PackedTokens& input, KeyValueCache* cache, int64_t in_front) const;
  DecoderConfig config_;
  Origin origin_;
  std::vector<Site*> sites_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::shared_ptr<Block>> blocks_;
  std::vector<int64_t> source_layers_;
  bool replicated_ = false;
  std::shared_ptr<Norm> norm_;
  std::shared_ptr<Linear> head_;
  std::shared_ptr<const RopeFrequencies> rope_;
  std::vector<ActivationCheckpointing> checkpointing_;
};

}  // namespace peft

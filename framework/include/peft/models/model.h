#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "peft/architecture/config.h"
#include "peft/base/export.h"
#include "peft/nn/attention.h"
#include "peft/nn/block.h"
#include "peft/nn/embedding.h"
#include "peft/nn/linear.h"
#include "peft/nn/norm.h"

namespace peft {

class PretrainedModel;
struct ModelFamily;
struct RopeFrequencies;

/// Tokens of one or more examples, concatenated, on the model's device.
struct PackedTokens {
  Tensor ids;                       ///< [T] int64
  Tensor positions;                 ///< [T] int64, restarting in each example
  std::vector<int64_t> cu_seqlens;  ///< [examples + 1] offsets into ids, on the host
};

/// A transformer from token ids to hidden states: embedding, blocks, final norm. Always held by shared_ptr.
class PEFT_API Model : public torch::nn::Module {
 public:
  explicit Model(DecoderConfig config);
  ~Model() override;
  const DecoderConfig& config() const { return config_; }
  /// Where the weights come from.
  struct Origin {
    std::string path;
    std::string fingerprint;  ///< PretrainedModel::fingerprint
    std::shared_ptr<const PretrainedModel> checkpoint = {};
  };
  const Origin& origin() const { return origin_; }
  void set_origin(Origin origin) { origin_ = std::move(origin); }
  /// True if embedding and head have a different number of rows than in the pretrained model's files; see
  /// with_vocabulary().
  bool vocabulary_resized() const;

  /// HF PEFT's layer_replication: the layers become those of the ranges [first, last), in order and renumbered; copies
  /// of a layer share its frozen weights. Invalidates pointers to sites. Throws ConfigError for a range that is not
  /// within the model's layers, and if an adapter is attached.
  void replicate_layers(const std::vector<std::pair<int64_t, int64_t>>& ranges);
  bool replicated() const { return replicated_; }
  /// For each layer, the index of the pretrained model's layer whose weights it has.
  const std::vector<int64_t>& source_layers() const { return source_layers_; }

  /// Final hidden states, after the last norm: [T, hidden]. With a cache: of one sequence, which is appended to it.
  Tensor hidden_states(const PackedTokens& input, KeyValueCache* cache = nullptr) const;
  /// Number of virtual tokens that adapters add before each example, and of positions that these and prefix keys take.
  int64_t virtual_tokens() const;
  int64_t virtual_positions() const;

  /// All sites, in the order of the forward pass.
  const std::vector<Site*>& sites() const { return sites_; }
  Site* find(const std::string& path) const;  ///< null if it does not exist
  const std::vector<std::shared_ptr<Block>>& layers() const { return layers_; }
  /// One for each layer, in order. Layers without one are left out.
  std::vector<Attention*> attentions() const;
  std::vector<Site*> mlps() const;
  Embedding& embedding() const { return *embedding_; }
  /// The head from hidden states to the vocabulary; null for a model without one.
  virtual Linear* output_embedding() const { return nullptr; }
  /// All tensors that adapters add to sites, as "site path.name" → tensor, in model order.
  NamedTensors adapter_tensors() const;
  /// The trainable ones of these.
  NamedTensors trainable() const;
  /// Tensors of the frozen base by their names in the pretrained model's files. A tied head is left out.
  NamedTensors frozen() const;
  void enable_adapters(bool on);
  void enable_fusion(bool on);
  /// One setting for each layer, in order. `none` everywhere by default.
  void set_checkpointing(std::vector<ActivationCheckpointing> by_layer);
  const std::vector<ActivationCheckpointing>& checkpointing() const { return checkpointing_; }
  torch::Device device() const { return embedding_->device(); }
  torch::Dtype dtype() const { return embedding_->dtype(); }

 protected:
  /// Adds a site after those of the decoder; for constructors of derived classes.
  void add_head(std::shared_ptr<Site> head);
  /// Output of the last layer, with rows for `num_virtual` virtual tokens before each example.
  Tensor run_layers(const PackedTokens& input, KeyValueCache* cache, int64_t num_virtual) const;
  const Norm& final_norm() const { return *norm_; }

 private:
  void register_sites();
  DecoderConfig config_;
  const ModelFamily* family_;
  Origin origin_;
  std::vector<Site*> sites_;
  std::shared_ptr<Embedding> embedding_;
  std::vector<std::shared_ptr<Block>> layers_;
  std::vector<int64_t> source_layers_;
  bool replicated_ = false;
  std::shared_ptr<Norm> norm_;
  std::vector<std::shared_ptr<Site>> heads_;
  std::shared_ptr<const RopeFrequencies> rope_;
  std::vector<ActivationCheckpointing> checkpointing_;
};

}  // namespace peft

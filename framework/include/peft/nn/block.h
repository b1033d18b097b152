#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/nn/kv_cache.h"
#include "peft/nn/site.h"

namespace peft {

class Attention;

/// Shared by all blocks of one forward pass.
struct ForwardContext {
  Tensor cos, sin;  ///< [T, head_dim / 2]
  std::vector<int64_t> cu_seqlens;
  KeyValueCache* cache;   ///< null in training
  int64_t cached_tokens;  ///< tokens in the cache before this pass, with virtual tokens, without an attention's prefix
};

/// Which activations of a layer the backward pass recomputes instead of saving (activation checkpointing, Chen et al.
/// 2016): none, the MLP's, or all but the layer's input. Results are bit-identical.
enum class ActivationCheckpointing { none, selective, full };

/// Activations that adapters on one site save for the backward pass. Measured, see planning/activation_profiler.h.
struct SiteActivations {
  double bytes_per_row = 0;  ///< for each row of the input, without the input and the output
  double fixed_bytes = 0;    ///< for each pass: weights that are computed in it
  bool saves_input = true;
  uint64_t bytes(int64_t rows) const {
    return static_cast<uint64_t>(bytes_per_row * static_cast<double>(rows) + fixed_bytes);
  }
};
using SiteProfiler = std::function<SiteActivations(const Site&)>;

/// Memory of a sublayer's activations, in elements of the model's dtype unless said otherwise.
struct SublayerCost {
  int64_t input_per_row = 0;      ///< of its input
  int64_t saved_per_row = 0;      ///< saved for the backward pass, with the input
  int64_t saved_per_example = 0;  ///< the same for each example: an attention's prefix
  SiteActivations adapters = {};  ///< bytes that adapters save that are not low-rank
  int64_t backward_per_row = 0;   ///< gradients that exist at the same time in the backward pass
  int64_t forward_per_row = 0;    ///< activations that exist at the same time in a forward pass that saves nothing
  /// Elements saved for `rows` rows of `examples` examples; `element_size` in bytes.
  int64_t saved(int64_t rows, int64_t examples, int64_t element_size) const;
};

/// A part of a block that adds its result to the residual stream: x + f(x).
class PEFT_API Sublayer {
 public:
  Sublayer() = default;
  virtual ~Sublayer();
  Sublayer(const Sublayer&) = delete;
  Sublayer& operator=(const Sublayer&) = delete;
  /// x: [T, hidden] → [T, hidden].
  virtual Tensor forward(const Tensor& x, const ForwardContext& context) const = 0;
  /// In the order of the forward pass.
  virtual std::vector<std::shared_ptr<Site>> sites() const = 0;
  /// With the adapters that are attached now. `profile` measures those that are not low-rank.
  virtual SublayerCost cost(const SiteProfiler& profile) const = 0;
  /// The attention or the MLP in it, as a site; null if it has none.
  virtual Attention* attention() const { return nullptr; }
  virtual Site* mlp() const { return nullptr; }
  /// Whether ActivationCheckpointing::selective recomputes it.
  virtual bool recomputed_by_selective() const { return mlp() != nullptr; }
  /// Disabled: computes site by site, to check the fused path.
  void enable_fusion(bool on) { fused_ = on; }

 protected:
  bool fused() const { return fused_; }

 private:
  bool fused_ = true;
};

/// One decoder layer. Families differ in their sublayers, and may override how these follow each other.
class PEFT_API Block {
 public:
  explicit Block(std::vector<std::shared_ptr<Sublayer>> sublayers);
  virtual ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  /// x: [T, hidden] → [T, hidden]. Runs the sublayers one after the other; the backward pass recomputes those that
  /// `checkpointing` selects.
  virtual Tensor forward(const Tensor& x, const ForwardContext& context, ActivationCheckpointing checkpointing) const;
  /// In the order of the forward pass.
  const std::vector<std::shared_ptr<Sublayer>>& sublayers() const { return sublayers_; }
  std::vector<std::shared_ptr<Site>> sites() const;
  /// The first one of the sublayers; null if none has one.
  Attention* attention() const;
  Site* mlp() const;
  void enable_fusion(bool on);

 private:
  std::vector<std::shared_ptr<Sublayer>> sublayers_;
};

/// Which decoder layer a block is, and which layer of the pretrained model's files has its weights.
struct LayerPosition {
  int64_t index, source;
  /// `name`: the part of the site's path after the layer's path.
  SiteInfo site(const std::string& name, const std::string& role) const;
};

}  // namespace peft

#pragma once

#include <peft/nn/embedding.h>
#include <peft/nn/linear.h>

#include "initialization.h"

namespace lora {

/// next(x) + scale · (B·A·dropout(x) + bias) (Hu et al. 2021). A and B are stored in Settings::tensor_options' dtype
/// and used in x's. For a residual initialization, A0 and B0 store the initial factors, and next(x) − scale · B0·A0·x
/// replaces the base: this is exact and needs no copy of the weight.
class LinearLayer : public peft::AdapterLayer {
 public:
  LinearLayer(const peft::Linear& site, const Settings& settings, const Initialization& init);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override;

  /// The full update of the loaded weight: A and B, or [A; A0] and [B, −B0], of twice the rank.
  peft::LowRank factors() const;
  bool has_residual_init() const { return A0_.defined(); }
  /// The factors that are subtracted from the base.
  Initialization residual_init() const { return {A0_, -minus_B0_, /*subtracts_from_base=*/true}; }
  /// Sets the tensors from the result of factors(), for a residual initialization.
  void set_factors(const torch::Tensor& A, const torch::Tensor& B);
  /// LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): replaces B's gradient by (∂B / scale²) · (A·Aᵀ)⁻¹, with which the
  /// step of B·A is closest to that of full training.
  void correct_gradient() const;

 protected:
  bool has_active_dropout() const { return dropout_ > 0 && is_training(); }
  /// y with the residual initialization's product of the elements that dropout removed from x, because the base has no
  /// dropout.
  torch::Tensor restore_dropped(const torch::Tensor& y, const torch::Tensor& x, const torch::Tensor& dropped) const;
  torch::Tensor A_, B_, bias_;   // [r, in], [out, r], [out] or undefined
  torch::Tensor A0_, minus_B0_;  // like A and B, or undefined
  double scale_, dropout_;
};

/// DoRA (Liu et al. 2024, arXiv 2402.09353): the rows of W + scale·B·A scaled to trainable norms. Their current norms
/// are constants in the backward pass, as in the paper (4.3) and in HF PEFT.
class DoraLayer final : public LinearLayer {
 public:
  /// `site` owns this layer, so it outlives it.
  DoraLayer(const peft::Linear& site, const Settings& settings, const Initialization& init);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override { return std::nullopt; }
  bool innermost() const override { return true; }

 private:
  torch::Tensor norms() const;
  const peft::Linear& site_;
  torch::Tensor squares_, magnitude_;  // [out]
};

/// next(ids) + scale · (rows of Aᵀ)·Bᵀ. Dropout does not apply to ids.
class EmbeddingLayer final : public peft::AdapterLayer {
 public:
  /// `tied`: the layer is shared with a tied head, for which B is initialized, as in HF PEFT.
  EmbeddingLayer(const peft::Embedding& site, const Settings& settings, bool tied);
  torch::Tensor forward(const torch::Tensor& ids, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override { return peft::LowRank{A_, B_, scale_}; }
  double scale() const { return scale_; }
  /// The factors of a head that shares this update: Bᵀ [r, hidden] and Aᵀ [rows, r], as views.
  torch::Tensor head_A() const { return B_.t(); }
  torch::Tensor head_B() const { return A_.t(); }

 private:
  torch::Tensor A_, B_;  // [r, rows], [hidden, r]
  double scale_;
};

/// HF PEFT's ensure_weight_tying: the head's update is that of the embedding to which it is tied. It has no parameters.
class TiedHeadLayer final : public peft::AdapterLayer {
 public:
  TiedHeadLayer(std::shared_ptr<const EmbeddingLayer> embedding, const Settings& settings)
      : embedding_(std::move(embedding)), scale_(settings.scale), dropout_(settings.dropout) {}
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override;
  /// Patterns can give the two sites other scales; then their merged weights differ.
  const peft::AdapterLayer* tied_to() const override {
    return scale_ == embedding_->scale() ? embedding_.get() : nullptr;
  }

 private:
  bool has_active_dropout() const { return dropout_ > 0 && is_training(); }
  std::shared_ptr<const EmbeddingLayer> embedding_;
  double scale_, dropout_;
};

}  // namespace lora

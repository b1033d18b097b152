#pragma once

#include <peft/nn/site.h>

#include "start.h"

namespace lora {

/// next(x) + scale · (B·A·dropout(x) + bias) (Hu et al. 2021). A and B are kept in `form`'s dtype and used in x's.
/// Where the start is of the base, A0 and B0 keep it and next(x) − scale · B0·A0·x stands for the base without it:
/// exact, and no weight is copied.
class LinearLayer : public peft::AdapterLayer {
 public:
  LinearLayer(const peft::Linear& site, const Settings& settings, const Start& start);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override;

  /// All of the update to the loaded weight: A and B, or [A; A0] and [B, −B0], of twice the rank.
  peft::LowRank factors() const;
  bool starts_of_base() const { return A0_.defined(); }
  /// What is taken out of the base.
  Start start() const { return {A0_, -minus_B0_, /*of_base=*/true}; }
  /// The reverse of factors(), where the start is of the base.
  void take(const torch::Tensor& A, const torch::Tensor& B);
  /// LoRA-FA (Zhang et al. 2023, arXiv 2308.03303): B's gradient becomes the one whose step in B·A is nearest to that
  /// of full training, (∂B / scale²) · (A·Aᵀ)⁻¹.
  void correct_gradient() const;

 protected:
  bool drops() const { return dropout_ > 0 && is_training(); }
  /// Adds to y what the taken start makes of the elements that dropout took from x.
  torch::Tensor undropped(const torch::Tensor& y, const torch::Tensor& x, const torch::Tensor& kept) const;
  torch::Tensor A_, B_, bias_;   // [r, in], [out, r], [out] or undefined
  torch::Tensor A0_, minus_B0_;  // like A and B, or undefined
  double scale_, dropout_;
};

/// DoRA (Liu et al. 2024, arXiv 2402.09353): rows of W + scale·B·A brought to trained lengths. Their present lengths
/// count as constants for gradients, as in the paper (4.3) and in PEFT.
class DoraLayer final : public LinearLayer {
 public:
  /// `site` owns this layer, and so outlives it.
  DoraLayer(const peft::Linear& site, const Settings& settings, const Start& start);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override { return std::nullopt; }
  bool innermost() const override { return true; }

 private:
  torch::Tensor norms() const;
  const peft::Linear& site_;
  torch::Tensor squares_, magnitude_;  // [out]
};

/// next(ids) + scale · (rows of Aᵀ)·Bᵀ. Dropout has no meaning for ids.
class EmbeddingLayer final : public peft::AdapterLayer {
 public:
  EmbeddingLayer(const peft::Embedding& site, const Settings& settings);
  torch::Tensor forward(const torch::Tensor& ids, const peft::Next& next) override;
  bool merge_into(peft::WeightAndBias& weights) const override;
  std::optional<peft::LowRank> as_lora() const override { return peft::LowRank{A_, B_, scale_}; }

 private:
  torch::Tensor A_, B_;  // [r, rows], [hidden, r]
  double scale_;
};

}  // namespace lora

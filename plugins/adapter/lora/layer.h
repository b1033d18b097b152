#pragma once

#include <peft/site.h>

#include "options.h"

namespace lora {

/// The same for every module, and what the patterns say of this one.
struct Settings {
  int64_t rank;
  double scale;
  double dropout;
  bool bias;
  peft::BoolOrString init;
  at::TensorOptions form;  ///< dtype and device of A and B
};

/// next(x) + scale · (B·A·dropout(x) + bias) (Hu et al. 2021). A and B are kept in `dtype` and used in x's.
class LinearLayer : public peft::Layer {
 public:
  LinearLayer(const peft::Linear& site, const Settings& settings);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool fold(peft::Affine& affine) const override;
  std::optional<peft::LowRank> low_rank() const override;

 protected:
  bool drops() const { return dropout_ > 0 && is_training(); }
  torch::Tensor A_, B_, bias_;  // [r, in], [out, r], [out] or undefined
  double scale_, dropout_;
};

/// DoRA (Liu et al. 2024, arXiv 2402.09353): rows of W + scale·B·A brought to trained lengths. Their present lengths
/// count as constants for gradients, as in the paper (4.3) and in PEFT.
class DoraLayer final : public LinearLayer {
 public:
  /// `site` owns this layer, and so outlives it.
  DoraLayer(const peft::Linear& site, const Settings& settings);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool fold(peft::Affine& affine) const override;
  std::optional<peft::LowRank> low_rank() const override { return std::nullopt; }
  bool innermost() const override { return true; }

 private:
  torch::Tensor norms() const;
  const peft::Linear& site_;
  torch::Tensor squares_, magnitude_;  // [out]
};

/// next(ids) + scale · (rows of Aᵀ)·Bᵀ. Dropout has no meaning for ids.
class EmbeddingLayer final : public peft::Layer {
 public:
  EmbeddingLayer(const peft::Embedding& site, const Settings& settings);
  torch::Tensor forward(const torch::Tensor& ids, const peft::Next& next) override;
  bool fold(peft::Affine& affine) const override;
  std::optional<peft::LowRank> low_rank() const override { return peft::LowRank{A_, B_, scale_}; }

 private:
  torch::Tensor A_, B_;  // [r, rows], [hidden, r]
  double scale_;
};

}  // namespace lora

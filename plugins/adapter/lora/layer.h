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
  torch::Dtype dtype;
  torch::Device device;
};

/// next(x) + scale · (B·A·dropout(x) + bias) (Hu et al. 2021). A and B are kept in `dtype` and used in x's.
class LinearLayer final : public peft::Layer {
 public:
  LinearLayer(int64_t in, int64_t out, const Settings& settings);
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override;
  bool fold(peft::Affine& affine) const override;
  std::optional<peft::LowRank> low_rank() const override;

 private:
  bool drops() const { return dropout_ > 0 && is_training(); }
  torch::Tensor A_, B_, bias_;  // [r, in], [out, r], [out] or undefined
  double scale_, dropout_;
};

/// next(ids) + scale · (rows of Aᵀ)·Bᵀ. Dropout has no meaning for ids.
class EmbeddingLayer final : public peft::Layer {
 public:
  EmbeddingLayer(int64_t rows, int64_t hidden, const Settings& settings);
  torch::Tensor forward(const torch::Tensor& ids, const peft::Next& next) override;
  bool fold(peft::Affine& affine) const override;
  std::optional<peft::LowRank> low_rank() const override { return peft::LowRank{A_, B_, scale_}; }

 private:
  torch::Tensor A_, B_;  // [r, rows], [hidden, r]
  double scale_;
};

}  // namespace lora

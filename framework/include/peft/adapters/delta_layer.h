#pragma once

#include "peft/base/export.h"
#include "peft/nn/site.h"

namespace peft {

/// A layer of a Linear that adds x·ΔWᵀ, for a method that computes the full matrix ΔW.
class PEFT_API DeltaLayer : public AdapterLayer {
 public:
  /// next(x) + dropout(x)·ΔWᵀ.
  Tensor forward(const Tensor& x, const Next& next) override;
  bool merge_into(WeightAndBias& weights) const override;

 protected:
  /// `dropout`: probability of dropping an element of the update's input in training.
  explicit DeltaLayer(double dropout = 0) : dropout_(dropout) {}
  /// ΔW [out, in] in `dtype`; gradients go through it to the layer's parameters.
  virtual Tensor delta(torch::Dtype dtype) const = 0;

 private:
  double dropout_;
};

}  // namespace peft

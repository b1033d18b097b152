#pragma once

#include "peft/base/export.h"
#include "peft/nn/site.h"

namespace peft {

/// A layer of a Linear whose update is scale · B(A(x)), with A and B computed from its parameters. It implements
/// factors(); forward, merging, the fused path and the exact export as LoRA follow.
class PEFT_API FactoredLayer : public AdapterLayer {
 public:
  /// next(x) + scale · B(A(dropout(x))).
  Tensor forward(const Tensor& x, const Next& next) final;
  bool merge_into(WeightAndBias& weights) const final;
  std::optional<LowRank> as_lora() const final;

 protected:
  /// `dropout`: probability of dropping an element of the update's input in training.
  explicit FactoredLayer(double dropout = 0) : dropout_(dropout) {}
  /// A and B; gradients go through them to the layer's parameters.
  virtual LowRank factors() const = 0;

 private:
  bool drops() const { return dropout_ > 0 && is_training(); }
  double dropout_;
};

}  // namespace peft

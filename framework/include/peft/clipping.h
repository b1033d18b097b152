#pragma once

#include "peft/export.h"
#include "peft/tensors.h"

namespace peft {

/// Bounds the gradients before the optimizer sees them.
class PEFT_API GradientClipper {
 public:
  virtual ~GradientClipper();
  /// Changes the gradients of `parameters` in place; returns their global 2-norm as it was before.
  virtual double clip(const std::vector<Tensor>& parameters) = 0;
};

}  // namespace peft

#pragma once

#include "peft/base/export.h"
#include "peft/runtime/param_group.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Bounds the gradients before the optimizer sees them.
class PEFT_API GradientClipping {
 public:
  virtual ~GradientClipping();
  /// Changes the gradients of the groups' parameters in place; returns their global 2-norm as it was before. If that is
  /// not finite it changes nothing: the loop skips the step.
  virtual double clip(const std::vector<ParamGroup>& groups) = 0;
  /// Everything a resumed run needs, where steps depend on earlier ones.
  virtual StateDict state_dict() const { return {}; }
  virtual void load_state_dict(const StateDict& state);
};

/// The gradients of those parameters that have one.
PEFT_API std::vector<Tensor> gradients(const std::vector<Tensor>& parameters);

/// The p-norm of all elements of `tensors` taken as one vector, 0 without any; p > 0. Summed in fp32, in fp64 where a
/// tensor is fp64 or where fp32 overflows.
PEFT_API double global_norm(const std::vector<Tensor>& tensors, double p = 2);

}  // namespace peft

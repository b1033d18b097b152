#pragma once

#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/stateful.h"
#include "peft/runtime/param_group.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Bounds the gradients before the optimizer uses them. A plugin overrides do_clip(), and the state methods if later
/// steps depend on earlier ones.
class PEFT_API GradientClipping : public Stateful {
 public:
  ~GradientClipping() override;
  /// Changes the gradients of the groups' parameters in place and returns their global 2-norm before clipping. If
  /// that is not finite, it changes nothing, and the loop skips the step.
  double clip(const std::vector<ParamGroup>& groups);

 protected:
  virtual double do_clip(const std::vector<ParamGroup>& groups) = 0;
};

/// The gradients of those parameters that have one.
PEFT_API std::vector<Tensor> gradients(const std::vector<Tensor>& parameters);

/// The p-norm of all elements of `tensors` as one vector, 0 for none; p > 0. Summed in fp32, or in fp64 if a tensor is
/// fp64 or fp32 overflows.
PEFT_API double global_norm(const std::vector<Tensor>& tensors, double p = 2);

}  // namespace peft

#pragma once

#include <functional>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Which dtypes hold what, and how the backward pass is made safe in them.
class PEFT_API Precision {
 public:
  virtual ~Precision();
  /// Of the frozen base and the activations.
  virtual torch::Dtype base_dtype() const = 0;
  /// Of trainable parameters, their gradients and the optimizer's state.
  virtual torch::Dtype adapter_dtype() const { return torch::kFloat32; }
  /// Runs the forward pass; a place for autocast.
  virtual Tensor forward(const std::function<Tensor()>& loss) { return loss(); }
  /// Runs the backward pass, scaling the loss first if it must.
  virtual void backward(const Tensor& loss);
  /// Brings gradients back to their true scale. False: they overflowed and the step must be skipped (never retried).
  virtual bool unscale_gradients(const std::vector<Tensor>& parameters);
  virtual StateDict state_dict() const { return {}; }
  virtual void load_state_dict(const StateDict& state);
};

}  // namespace peft

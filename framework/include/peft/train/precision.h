#pragma once

#include <functional>
#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/stateful.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// The dtypes of base and adapters, and how the backward pass is made safe in them. A plugin overrides the protected
/// do_… methods, and the state methods if later steps depend on earlier ones.
class PEFT_API Precision : public Stateful {
 public:
  ~Precision() override;
  /// Dtype of the frozen base and the activations.
  torch::Dtype base_dtype() const;
  /// Dtype of trainable parameters, their gradients and the optimizer's state.
  torch::Dtype adapter_dtype() const;
  /// Runs a forward pass; the place for autocast. Exceptions of `loss` itself pass unchanged.
  Tensor forward(const std::function<Tensor()>& loss);
  /// Runs the backward pass, and scales the loss first if necessary. Exceptions in autograd are attributed to the
  /// precision: which layer they come from is unknown.
  void backward(const Tensor& loss);
  /// Restores the gradients' true scale. False: they overflowed, and the step must be skipped (it is never retried).
  bool unscale_gradients(const std::vector<Tensor>& parameters);

 protected:
  virtual torch::Dtype do_base_dtype() const = 0;
  virtual torch::Dtype do_adapter_dtype() const { return torch::kFloat32; }
  virtual Tensor do_forward(const std::function<Tensor()>& loss) { return loss(); }
  virtual void do_backward(const Tensor& loss);
  virtual bool do_unscale_gradients(const std::vector<Tensor>& parameters);
};

}  // namespace peft

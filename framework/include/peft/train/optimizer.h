#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/param_group.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Turns gradients into steps. One plugin each.
class PEFT_API Optimizer {
 public:
  virtual ~Optimizer();
  /// Takes over a group: fills in what it leaves open. Call before the first step.
  void add(ParamGroup group);
  std::vector<ParamGroup>& groups() { return groups_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  /// One step with each group's `lr` and the gradients as they are; a parameter without a gradient stays.
  virtual void step() = 0;
  /// Sets every gradient to zero, or drops it.
  virtual void zero_grad();
  /// Everything a resumed run needs, by parameter name. Valid in both modes of eval() and train().
  virtual StateDict state_dict() const = 0;
  /// Goes on from `state`, exactly; may set the parameters, where what trains is not what is saved. Throws InputError
  /// for a state of other parameters.
  virtual void load_state_dict(const StateDict& state) = 0;
  /// Bytes of state that this parameter will cost (AdamW in fp32: 8 an element), counters aside, for `plan`.
  virtual uint64_t state_bytes(const Tensor& parameter) const = 0;

  /// Puts into the parameters what is to be evaluated and saved, where that is not what trains (schedule-free's
  /// average); train() puts back what trains, bit for bit. A second call of either does nothing.
  virtual void eval() {}
  virtual void train() {}

  /// True: before the coming step the optimizer is to be shown the gradients of a loss whose labels the model draws
  /// from its own distribution (Sophia). The loop computes them beside the step's own.
  virtual bool needs_sampled_label_gradients() const { return false; }
  /// The parameters hold those gradients, of the mean over `tokens` drawn labels. Never called unless asked for.
  virtual void on_sampled_label_gradients(int64_t /*tokens*/) {}

 protected:
  virtual double default_lr() const = 0;
  virtual double default_weight_decay() const { return 0; }
  std::vector<ParamGroup> groups_;
};

}  // namespace peft

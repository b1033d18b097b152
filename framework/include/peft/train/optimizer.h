#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/plugin/stateful.h"
#include "peft/runtime/param_group.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Turns gradients into parameter updates. A plugin overrides the protected do_… methods. An exception of one of them
/// that is not a peft::Error is reported as a PluginError with the plugin's file.
///
/// Its state is stored by parameter name, and is valid between eval() and train() as well. Loading may set the
/// parameters, if the trained values are not the saved ones. It throws InputError if the state is of other parameters.
class PEFT_API Optimizer : public Stateful {
 public:
  ~Optimizer() override;
  /// Takes over a group and fills in the settings that it leaves open. Call before the first step.
  void add_param_group(ParamGroup group);
  std::vector<ParamGroup>& groups() { return groups_; }
  const std::vector<ParamGroup>& groups() const { return groups_; }
  /// One step with each group's `lr` and the current gradients; a parameter without a gradient does not change.
  void step();
  /// Clears every gradient.
  void zero_grad();
  /// Bytes of state for this parameter (AdamW in fp32: 8 per element), without step counters. `plan` uses it.
  uint64_t state_bytes(const Tensor& parameter) const;
  /// Sets the parameters to the values to evaluate and save if these differ from the trained ones (the average of
  /// schedule-free methods); train() restores the trained values bit-identically. Both are idempotent.
  void eval();
  void train();
  /// True: before the next step the optimizer needs the gradients of a loss whose labels are sampled from the model's
  /// own distribution (Sophia). The loop computes them in an additional pass.
  bool needs_sampled_label_gradients() const;
  /// The parameters now have those gradients, of the mean over `tokens` sampled labels. Called only when needed.
  void on_sampled_label_gradients(int64_t tokens);

 protected:
  virtual double default_lr() const = 0;
  virtual double default_weight_decay() const { return 0; }
  virtual void do_step() = 0;
  virtual void do_zero_grad();
  virtual uint64_t do_state_bytes(const Tensor& parameter) const = 0;
  virtual void do_eval() {}
  virtual void do_train() {}
  virtual bool do_needs_sampled_label_gradients() const { return false; }
  virtual void do_on_sampled_label_gradients(int64_t /*tokens*/) {}
  StateDict do_state_dict() const override = 0;
  void do_load_state_dict(const StateDict& state) override = 0;
  std::vector<ParamGroup> groups_;
};

}  // namespace peft

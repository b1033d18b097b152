#pragma once

#include <optional>
#include <string>
#include <vector>

#include "peft/export.h"
#include "peft/tensors.h"

namespace peft {

/// Parameters that share their settings (torch's param group).
struct ParamGroup {
  std::string name;                    ///< shown in logs, e.g. "adapter"
  NamedTensors parameters;             ///< trainable leaves, all of one dtype and device
  std::optional<double> initial_lr;    ///< absent: the optimizer's own `lr`
  double lr_scale = 1;                 ///< of the optimizer's own `lr`, where initial_lr is absent
  std::optional<double> weight_decay;  ///< absent: the optimizer's own `weight_decay`
  double lr = 0;                       ///< of the coming step; the loop sets it from the scheduler
};

/// Turns gradients into steps. One plugin each.
class PEFT_API Optimizer {
 public:
  virtual ~Optimizer();
  /// Takes over a group: fills in what it leaves open. Call before the first step.
  void add(ParamGroup group);
  std::vector<ParamGroup>& groups() { return groups_; }
  /// One step with each group's `lr` and the gradients as they are; a parameter without a gradient stays.
  virtual void step() = 0;
  /// Sets every gradient to zero, or drops it.
  virtual void zero_grad();
  /// Everything a resumed run needs, by parameter name.
  virtual State state() const = 0;
  virtual void load(const State& state) = 0;
  /// Bytes of state that one trainable element will cost (AdamW in fp32: 8), for `plan`.
  virtual double state_bytes_per_element() const = 0;

 protected:
  virtual double default_lr() const = 0;
  virtual double default_weight_decay() const { return 0; }
  std::vector<ParamGroup> groups_;
};

}  // namespace peft

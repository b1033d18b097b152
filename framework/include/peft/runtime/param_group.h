#pragma once

#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

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

/// The parameters of all groups, in their order.
PEFT_API std::vector<Tensor> parameters_of(const std::vector<ParamGroup>& groups);

}  // namespace peft

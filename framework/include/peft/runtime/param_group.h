#pragma once

#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// Parameters with common hyperparameters, as torch.optim's param groups.
struct ParamGroup {
  std::string name;                    ///< shown in logs, for example "adapter"
  NamedTensors parameters;             ///< trainable leaves of the same dtype and device
  std::optional<double> initial_lr;    ///< default: the optimizer's `lr` times `lr_scale`
  double lr_scale = 1;                 ///< ignored if initial_lr is set
  std::optional<double> weight_decay;  ///< default: the optimizer's `weight_decay`
  double lr = 0;                       ///< learning rate of the next step; the training loop sets it from the scheduler
};

/// The parameters of all groups, in order.
PEFT_API std::vector<Tensor> parameters_of(const std::vector<ParamGroup>& groups);

}  // namespace peft

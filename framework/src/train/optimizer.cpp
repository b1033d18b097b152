#include "peft/train/optimizer.h"

#include "plugin/plugin_call.h"

namespace peft {

Optimizer::~Optimizer() = default;

void Optimizer::add(ParamGroup group) {
  detail::call_plugin(*this, "default_lr", [&] {
    if (!group.initial_lr) group.initial_lr = default_lr() * group.lr_scale;
    if (!group.weight_decay) group.weight_decay = default_weight_decay();
  });
  group.lr = *group.initial_lr;
  groups_.push_back(std::move(group));
}

void Optimizer::zero_grad() {
  for (ParamGroup& group : groups_)
    for (auto& [name, parameter] : group.parameters) parameter.mutable_grad().reset();
}

}  // namespace peft

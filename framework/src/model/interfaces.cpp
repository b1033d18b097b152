// The out-of-line parts of the plugin interfaces: their typeinfo lives in libpeft once.
#include <nlohmann/json.hpp>

#include "peft/adapter.h"
#include "peft/clipping.h"
#include "peft/error.h"
#include "peft/model/decoder.h"
#include "peft/optimizer.h"
#include "peft/precision.h"
#include "peft/scheduler.h"
#include "peft/site.h"

namespace peft {

Adapter::~Adapter() = default;

std::vector<ParamGroup> Adapter::groups(const Model& model) const {
  ParamGroup group;
  group.name = "adapter";
  group.parameters = model.trainable();
  return {group};
}

State Adapter::hf_state(const Model& model) const {
  State state;
  for (const auto& [name, tensor] : model.trainable()) state.emplace("base_model.model." + name, tensor);
  return state;
}

Optimizer::~Optimizer() = default;

void Optimizer::add(ParamGroup group) {
  if (!group.initial_lr) group.initial_lr = default_lr();
  if (!group.weight_decay) group.weight_decay = default_weight_decay();
  group.lr = *group.initial_lr;
  groups_.push_back(std::move(group));
}

void Optimizer::zero_grad() {
  for (ParamGroup& group : groups_)
    for (auto& [name, parameter] : group.parameters) parameter.mutable_grad().reset();
}

Scheduler::~Scheduler() = default;
GradientClipper::~GradientClipper() = default;
Precision::~Precision() = default;

void Precision::backward(const Tensor& loss) { loss.backward(); }
bool Precision::ready(const std::vector<Tensor>&) { return true; }
void Precision::load(const State& state) {
  if (!state.empty()) throw InputError("this precision keeps no state, but the checkpoint has some");
}

}  // namespace peft

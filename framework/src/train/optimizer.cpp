#include "peft/train/optimizer.h"

#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

Optimizer::~Optimizer() = default;

void Optimizer::add_param_group(ParamGroup group) {
  call_plugin(*this, "default_lr", [&] {
    if (!group.initial_lr) group.initial_lr = default_lr() * group.lr_scale;
    if (!group.weight_decay) group.weight_decay = default_weight_decay();
  });
  group.lr = *group.initial_lr;
  groups_.push_back(std::move(group));
}

void Optimizer::step() {
  call_plugin(*this, "step", [&] { do_step(); });
}

void Optimizer::zero_grad() {
  call_plugin(*this, "zero_grad", [&] { do_zero_grad(); });
}

uint64_t Optimizer::state_bytes(const Tensor& parameter) const {
  return call_plugin(*this, "state_bytes", [&] { return do_state_bytes(parameter); });
}

void Optimizer::eval() {
  call_plugin(*this, "eval", [&] { do_eval(); });
}

void Optimizer::train() {
  call_plugin(*this, "train", [&] { do_train(); });
}

bool Optimizer::needs_sampled_label_gradients() const {
  return call_plugin(*this, "needs_sampled_label_gradients", [&] { return do_needs_sampled_label_gradients(); });
}

void Optimizer::on_sampled_label_gradients(int64_t tokens) {
  call_plugin(*this, "on_sampled_label_gradients", [&] { do_on_sampled_label_gradients(tokens); });
}

void Optimizer::do_zero_grad() {
  for (ParamGroup& group : groups_)
    for (auto& [name, parameter] : group.parameters) parameter.mutable_grad().reset();
}

}  // namespace peft

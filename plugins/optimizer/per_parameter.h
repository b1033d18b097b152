#pragma once

#include <peft/base/error.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <map>
#include <string>

/// An optimizer's state of one parameter.
struct ParamState {
  int64_t step = 0;         ///< steps with a gradient, including the current one
  peft::StateDict tensors;  ///< by their torch names, e.g. "exp_avg"
  torch::Tensor& operator[](const char* name) { return tensors.at(name); }
};

/// An optimizer that updates each parameter independently. A parameter's state is created at its first gradient.
class PerParameter : public peft::Optimizer {
 public:
  /// `name` is for messages.
  explicit PerParameter(std::string name) : name_(std::move(name)) {}

 protected:
  void do_step() override {
    const torch::NoGradGuard no_grad;
    for (const peft::ParamGroup& group : groups_)
      for (const auto& [name, parameter] : group.parameters) {
        if (!parameter.grad().defined()) continue;
        ParamState& state = state_of(name, parameter);
        ++state.step;
        update(parameter, parameter.grad(), state, group);
      }
  }

  peft::StateDict do_state_dict() const override {
    peft::StateDict state;
    for (const auto& [name, saved] : states_) add(state, name, saved);
    return state;
  }

  void do_load_state_dict(const peft::StateDict& state) override {
    const torch::NoGradGuard no_grad;
    std::map<std::string, ParamState> loaded;
    peft::StateDict wanted;
    for (const peft::ParamGroup& group : groups_)
      for (const auto& [name, parameter] : group.parameters) {
        const auto step = state.find(name + ".step");
        if (step == state.end()) continue;  // never had a gradient
        ParamState& fresh = loaded[name] = make_param_state(parameter);
        if (step->second.numel() == 1) fresh.step = step->second.item<int64_t>();
        add(wanted, name, fresh);
      }
    const std::string problems = peft::describe_mismatch(wanted, state);
    if (!problems.empty()) throw peft::InputError(name_ + ": the saved state is not of these parameters:" + problems);
    for (auto& [name, fresh] : loaded)
      for (auto& [key, tensor] : fresh.tensors) tensor.copy_(state.at(name + "." + key));
    states_ = std::move(loaded);
  }

  uint64_t do_state_bytes(const torch::Tensor& parameter) const override {
    const torch::NoGradGuard no_grad;
    uint64_t sum = 0;
    const torch::Tensor shape = at::empty(parameter.sizes(), parameter.options().device(torch::kMeta));
    for (const auto& [key, tensor] : make_state(shape)) sum += tensor.nbytes();
    return sum;
  }

  /// The state before the first step, on the parameter's device (which may be meta).
  virtual peft::StateDict make_state(const torch::Tensor& parameter) const = 0;
  /// One step of one parameter.
  virtual void update(torch::Tensor parameter, const torch::Tensor& gradient, ParamState& state,
                      const peft::ParamGroup& group) = 0;

  ParamState& state_of(const std::string& name, const torch::Tensor& parameter) {
    const auto it = states_.find(name);
    return it != states_.end() ? it->second : states_.emplace(name, make_param_state(parameter)).first->second;
  }
  std::map<std::string, ParamState>& states() { return states_; }

 private:
  ParamState make_param_state(const torch::Tensor& parameter) const {
    const peft::MemoryScope scope(peft::MemoryComponent::optimizer);
    return {0, make_state(parameter.detach())};
  }
  static void add(peft::StateDict& state, const std::string& name, const ParamState& of) {
    state[name + ".step"] = torch::tensor(of.step, torch::kLong);
    for (const auto& [key, tensor] : of.tensors) state[name + "." + key] = tensor;
  }
  std::string name_;
  std::map<std::string, ParamState> states_;  ///< by parameter name
};

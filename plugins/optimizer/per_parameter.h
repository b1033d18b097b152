#pragma once

#include <peft/base/error.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>
#include <torch/torch.h>

#include <map>
#include <string>

/// What an optimizer keeps of one parameter.
struct Kept {
  int64_t step = 0;         ///< steps with a gradient, the running one among them
  peft::StateDict tensors;  ///< by their torch names, e.g. "exp_avg"
  torch::Tensor& operator[](const char* name) { return tensors.at(name); }
};

/// An optimizer that treats each parameter by itself. What it keeps of one is made at its first gradient.
class PerParameter : public peft::Optimizer {
 public:
  /// `name` is for messages.
  explicit PerParameter(std::string name) : name_(std::move(name)) {}

  void step() override {
    const torch::NoGradGuard no_grad;
    for (const peft::ParamGroup& group : groups_)
      for (const auto& [name, parameter] : group.parameters) {
        if (!parameter.grad().defined()) continue;
        Kept& kept = kept_of(name, parameter);
        ++kept.step;
        update(parameter, parameter.grad(), kept, group);
      }
  }

  peft::StateDict state_dict() const override {
    peft::StateDict state;
    for (const auto& [name, kept] : kept_) add(state, name, kept);
    return state;
  }

  void load_state_dict(const peft::StateDict& state) override {
    const torch::NoGradGuard no_grad;
    std::map<std::string, Kept> loaded;
    peft::StateDict wanted;
    for (const peft::ParamGroup& group : groups_)
      for (const auto& [name, parameter] : group.parameters) {
        const auto step = state.find(name + ".step");
        if (step == state.end()) continue;  // never had a gradient
        Kept& kept = loaded[name] = fresh(parameter);
        if (step->second.numel() == 1) kept.step = step->second.item<int64_t>();
        add(wanted, name, kept);
      }
    const std::string problems = peft::describe_mismatch(wanted, state);
    if (!problems.empty()) throw peft::InputError(name_ + ": the saved state is not of these parameters:" + problems);
    for (auto& [name, kept] : loaded)
      for (auto& [key, tensor] : kept.tensors) tensor.copy_(state.at(name + "." + key));
    kept_ = std::move(loaded);
  }

  uint64_t state_bytes(const torch::Tensor& parameter) const override {
    const torch::NoGradGuard no_grad;
    uint64_t sum = 0;
    const torch::Tensor shape = at::empty(parameter.in_size_limit(), parameter.options().device(torch::kMeta));
    for (const auto& [key, tensor] : make_state(shape)) sum += tensor.nbytes();
    return sum;
  }

 protected:
  /// The state before the first step, on the parameter's device (which may be meta).
  virtual peft::StateDict make_state(const torch::Tensor& parameter) const = 0;
  /// One step of one parameter.
  virtual void update(torch::Tensor parameter, const torch::Tensor& gradient, Kept& kept,
                      const peft::ParamGroup& group) = 0;

  Kept& kept_of(const std::string& name, const torch::Tensor& parameter) {
    const auto it = kept_.find(name);
    return it != kept_.end() ? it->second : kept_.emplace(name, fresh(parameter)).first->second;
  }
  std::map<std::string, Kept>& all_kept() { return kept_; }

 private:
  Kept fresh(const torch::Tensor& parameter) const {
    const peft::MemoryScope scope(peft::MemoryComponent::optimizer);
    return {0, make_state(parameter.detach())};
  }
  static void add(peft::StateDict& state, const std::string& name, const Kept& kept) {
    state[name + ".step"] = torch::tensor(kept.step, torch::kLong);
    for (const auto& [key, tensor] : kept.tensors) state[name + "." + key] = tensor;
  }
  std::string name_;
  std::map<std::string, Kept> kept_;  ///< by parameter name
};

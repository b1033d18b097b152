// AdamW: Adam with decoupled weight decay (Loshchilov & Hutter 2019, arXiv 1711.05101).
#include <peft/base/error.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>
#include <torch/types.h>
#include <torch/utils.h>

#include "../common_options.h"

namespace {

using torch::Tensor;

struct AdamWOptions {
  double lr = 2e-4, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
};

class AdamW final : public peft::Optimizer {
 public:
  explicit AdamW(AdamWOptions options) : options_(options) {}

 protected:
  void do_step() override;
  peft::StateDict do_state_dict() const override;
  void do_load_state_dict(const peft::StateDict& state) override;
  uint64_t do_state_bytes(const Tensor& parameter) const override { return 2 * parameter.nbytes(); }

  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }

 private:
  struct Moments {
    Tensor exp_avg, exp_avg_sq;  ///< views of the group's flat buffers
    Tensor step;                 ///< steps taken, in the form that torch's fused kernel expects
  };
  void make_moments();
  AdamWOptions options_;
  std::map<std::string, Moments> moments_;  ///< by parameter name
};

/// Two flat buffers for each group, on the first step; a parameter's moments are views of them.
void AdamW::make_moments() {
  const peft::MemoryScope scope(peft::MemoryComponent::optimizer);
  for (const peft::ParamGroup& group : groups_) {
    int64_t elements = 0;
    for (const auto& [name, parameter] : group.parameters) elements += parameter.numel();
    if (elements == 0) continue;
    const auto options = group.parameters.front().second.options().requires_grad(false);
    const Tensor first = torch::zeros({elements}, options), second = torch::zeros({elements}, options);
    int64_t at = 0;
    for (const auto& [name, parameter] : group.parameters) {
      const auto window = [&](const Tensor& flat) {
        return flat.narrow(0, at, parameter.numel()).view(parameter.sizes());
      };
      const Tensor step = torch::zeros({}, options.dtype(torch::kFloat));
      if (!moments_.emplace(name, Moments{window(first), window(second), step}).second)
        throw peft::PluginError("adamw: two parameters are named '" + name + "'");
      at += parameter.numel();
    }
  }
}

void AdamW::do_step() {
  const torch::NoGradGuard no_grad;
  if (moments_.empty()) make_moments();
  for (const peft::ParamGroup& group : groups_) {
    std::vector<Tensor> parameters, gradients, first, second, steps;
    for (const auto& [name, parameter] : group.parameters) {
      if (!parameter.grad().defined()) continue;
      Moments& moments = moments_.at(name);
      parameters.push_back(parameter);
      gradients.push_back(parameter.grad());
      first.push_back(moments.exp_avg);
      second.push_back(moments.exp_avg_sq);
      steps.push_back(moments.step += 1);
    }
    if (parameters.empty()) continue;
    at::_fused_adamw_(parameters, gradients, first, second, /*max_exp_avg_sqs=*/{}, steps, group.lr, options_.beta1,
                      options_.beta2, *group.weight_decay, options_.eps, /*amsgrad=*/false, /*maximize=*/false);
  }
}

peft::StateDict AdamW::do_state_dict() const {
  peft::StateDict state;
  for (const auto& [name, moments] : moments_) {
    state[name + ".exp_avg"] = moments.exp_avg;
    state[name + ".exp_avg_sq"] = moments.exp_avg_sq;
    state[name + ".step"] = moments.step;
  }
  return state;
}

void AdamW::do_load_state_dict(const peft::StateDict& state) {
  const torch::NoGradGuard no_grad;
  if (moments_.empty()) make_moments();
  const peft::StateDict current = do_state_dict();
  const std::string problems = peft::describe_mismatch(current, state);
  if (!problems.empty()) throw peft::InputError("adamw: the saved state is not of these parameters:" + problems);
  for (const auto& [name, tensor] : current) Tensor(tensor).copy_(state.at(name));
}

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  AdamWOptions o;
  read_lr(in, o.lr);
  read_adam(in, o.beta1, o.beta2, o.eps);
  read_weight_decay(in, o.weight_decay);
  return std::make_unique<AdamW>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("adamw", make); }

}  // namespace

PEFT_PLUGIN("adamw", "1.0.0", add)

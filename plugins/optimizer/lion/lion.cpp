// Lion: the sign of an interpolated momentum (Chen et al. 2023, arXiv 2302.06675).
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

struct LionOptions {
  double lr = 2e-5, beta1 = 0.9, beta2 = 0.99, weight_decay = 0;
};

class Lion final : public PerParameter {
 public:
  explicit Lion(LionOptions options) : PerParameter("lion"), options_(options) {}

 protected:
  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const torch::Tensor& parameter) const override {
    return {{"exp_avg", at::zeros_like(parameter)}};
  }
  void update(torch::Tensor parameter, const torch::Tensor& gradient, ParamState& state,
              const peft::ParamGroup& group) override {
    torch::Tensor& exp_avg = state["exp_avg"];
    if (*group.weight_decay != 0) parameter.mul_(1 - group.lr * *group.weight_decay);
    parameter.add_(exp_avg.lerp(gradient, 1 - options_.beta1).sign_(), -group.lr);
    exp_avg.lerp_(gradient, 1 - options_.beta2);
  }

 private:
  LionOptions options_;
};

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  LionOptions o;
  read_lr(in, o.lr);
  read_beta(in, "beta1", o.beta1, "weight of the momentum in the update direction");
  read_beta(in, "beta2", o.beta2, "decay of the momentum");
  read_weight_decay(in, o.weight_decay);
  return std::make_unique<Lion>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("lion", make); }

}  // namespace

PEFT_PLUGIN("lion", "1.0.0", add)

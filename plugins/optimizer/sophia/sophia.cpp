// Sophia-G: momentum over a clipped estimate of the curvature's diagonal (Liu et al. 2023, arXiv 2305.14342).
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

using torch::Tensor;

struct SophiaOptions {
  double lr = 1e-4, beta1 = 0.965, beta2 = 0.99, rho = 0.04, weight_decay = 0;
  int64_t update_period = 10;
};

class Sophia final : public PerParameter {
 public:
  explicit Sophia(SophiaOptions options) : PerParameter("sophia"), options_(options) {}

 protected:
  /// Once before each of these steps, even if the step is repeated.
  bool do_needs_sampled_label_gradients() const override {
    return steps_ % options_.update_period == 0 && observed_at_ != steps_;
  }

  /// The Gauss-Newton-Bartlett estimate: tokens · g², with the gradient g of the mean over sampled labels.
  void do_on_sampled_label_gradients(int64_t tokens) override {
    const torch::NoGradGuard no_grad;
    observed_at_ = steps_;
    const double weight = (1 - options_.beta2) * static_cast<double>(tokens);
    for (const peft::ParamGroup& group : groups_)
      for (const auto& [name, parameter] : group.parameters)
        if (parameter.grad().defined())
          state_of(name, parameter)["hessian"]
              .mul_(options_.beta2)
              .addcmul_(parameter.grad(), parameter.grad(), weight);
  }

  void do_step() override {
    PerParameter::do_step();
    ++steps_;
  }
  peft::StateDict do_state_dict() const override {
    peft::StateDict state = PerParameter::do_state_dict();
    state["steps"] = torch::tensor(steps_, torch::kLong);
    state["observed_at"] = torch::tensor(observed_at_, torch::kLong);
    return state;
  }
  void do_load_state_dict(const peft::StateDict& state) override {
    peft::StateDict rest = state;
    const auto steps = rest.extract("steps"), observed_at = rest.extract("observed_at");
    if (!steps || steps.mapped().numel() != 1 || !observed_at || observed_at.mapped().numel() != 1)
      throw peft::InputError("sophia: the saved state has no step count");
    PerParameter::do_load_state_dict(rest);
    steps_ = steps.mapped().item<int64_t>();
    observed_at_ = observed_at.mapped().item<int64_t>();
  }

  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const Tensor& parameter) const override {
    return {{"exp_avg", at::zeros_like(parameter)}, {"hessian", at::zeros_like(parameter)}};
  }
  void update(Tensor parameter, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) override {
    Tensor& exp_avg = state["exp_avg"];
    if (*group.weight_decay != 0) parameter.mul_(1 - group.lr * *group.weight_decay);
    exp_avg.mul_(options_.beta1).add_(gradient, 1 - options_.beta1);
    const Tensor ratio = exp_avg.abs().div_((state["hessian"] * options_.rho).add_(1e-15)).clamp_max_(1);
    parameter.addcmul_(exp_avg.sign(), ratio, -group.lr);
  }

 private:
  SophiaOptions options_;
  int64_t steps_ = 0, observed_at_ = -1;  ///< steps taken, in all and at the last curvature estimate
};

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  SophiaOptions o;
  read_lr(in, o.lr);
  read_beta(in, "beta1", o.beta1, "decay of the running mean of the gradients");
  read_beta(in, "beta2", o.beta2, "decay of the running mean of the curvature estimates");
  read_positive(in, "rho", o.rho, "factor of the curvature; larger values clip fewer elements");
  in.get("update_period", o.update_period, "steps between curvature estimates; each costs about as much as a step")
      .require(o.update_period > 0, "must be positive");
  read_weight_decay(in, o.weight_decay);
  return std::make_unique<Sophia>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("sophia", make); }

}  // namespace

PEFT_PLUGIN("sophia", "1.0.0", add)

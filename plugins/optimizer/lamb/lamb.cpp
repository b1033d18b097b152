// LAMB: Adam whose update norm is proportional to the layer's norm (You et al. 2020, arXiv 1904.00962).
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

/// Maximum of the weights' norm, as in the authors' code.
constexpr double kMostNorm = 10;

struct LambOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-6, weight_decay = 0;
};

class Lamb final : public PerParameter {
 public:
  explicit Lamb(LambOptions options) : PerParameter("lamb"), options_(options) {}

 protected:
  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const torch::Tensor& parameter) const override {
    return {{"exp_avg", at::zeros_like(parameter)}, {"exp_avg_sq", at::zeros_like(parameter)}};
  }
  void update(torch::Tensor parameter, const torch::Tensor& gradient, ParamState& state,
              const peft::ParamGroup& group) override {
    torch::Tensor &exp_avg = state["exp_avg"], &exp_avg_sq = state["exp_avg_sq"];
    exp_avg.mul_(options_.beta1).add_(gradient, 1 - options_.beta1);
    exp_avg_sq.mul_(options_.beta2).addcmul_(gradient, gradient, 1 - options_.beta2);
    torch::Tensor direction = exp_avg / exp_avg_sq.sqrt().add_(options_.eps);
    if (*group.weight_decay != 0) direction.add_(parameter, *group.weight_decay);
    const double length = std::min(kMostNorm, parameter.norm().item<double>()),
                 step_length = direction.norm().item<double>();
    const double trust = length == 0 || step_length == 0 ? 1 : length / (step_length + options_.eps);
    parameter.add_(direction, -group.lr * trust);
  }

 private:
  LambOptions options_;
};

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  LambOptions o;
  read_lr(in, o.lr);
  read_adam(in, o.beta1, o.beta2, o.eps);
  in.get("weight_decay", o.weight_decay, "weight decay, added to the update direction before it is scaled")
      .require(std::isfinite(o.weight_decay) && o.weight_decay >= 0, "must be 0 or more");
  return std::make_unique<Lamb>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("lamb", make); }

}  // namespace

PEFT_PLUGIN("lamb", "1.0.0", add)

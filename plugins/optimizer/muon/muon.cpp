// Muon: momentum, orthogonalized by Newton-Schulz, for matrices; AdamW for the rest (Jordan et al. 2024,
// https://kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv 2502.16982), as torch.optim.Muon.
#include "../adam_step.h"
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

using torch::Tensor;

struct MuonOptions {
  double lr = 2e-4, momentum = 0.95, weight_decay = 0;
  bool nesterov = true;
  int64_t ns_steps = 5;
  std::string adjust_lr_fn = "match_rms_adamw";
  std::optional<double> adamw_lr;
  AdamOptions adam;
};

/// Approximately U·Vᵀ of the singular value decomposition U·S·Vᵀ of `x` [rows, cols], in bfloat16.
Tensor orthogonalized(const Tensor& x, int64_t steps) {
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315, eps = 1e-7;
  const bool tall = x.size(0) > x.size(1);
  Tensor y = x.to(torch::kBFloat16, false, /*copy=*/true);
  if (tall) y = y.t();
  y.div_(y.norm().clamp_min(eps));
  for (int64_t i = 0; i < steps; ++i) {
    const Tensor gram = y.mm(y.t());
    y = at::addmm(y, at::addmm(gram, gram, gram, b, c), y, a);
  }
  return tall ? y.t() : y;
}

class Muon final : public PerParameter {
 public:
  explicit Muon(MuonOptions options) : PerParameter("muon"), options_(std::move(options)) {}

 protected:
  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const Tensor& parameter) const override {
    if (parameter.dim() == 2) return {{"momentum_buffer", at::zeros_like(parameter)}};
    return {{"exp_avg", at::zeros_like(parameter)}, {"exp_avg_sq", at::zeros_like(parameter)}};
  }
  void update(Tensor parameter, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) override {
    if (parameter.dim() != 2) {
      // The group's scheduled learning rate, times the ratio of the two options.
      const double lr = options_.adamw_lr && options_.lr > 0 ? group.lr * *options_.adamw_lr / options_.lr : group.lr;
      return adamw_step(parameter, gradient, state["exp_avg"], state["exp_avg_sq"], state.step, options_.adam, lr,
                        *group.weight_decay);
    }
    Tensor& momentum = state["momentum_buffer"];
    momentum.lerp_(gradient, 1 - options_.momentum);
    const Tensor direction = options_.nesterov ? gradient.lerp(momentum, options_.momentum) : momentum;
    if (*group.weight_decay != 0) parameter.mul_(1 - group.lr * *group.weight_decay);
    parameter.add_(orthogonalized(direction, options_.ns_steps), -group.lr * factor(parameter));
  }

 private:
  double factor(const Tensor& parameter) const {
    const auto rows = static_cast<double>(parameter.size(0)), cols = static_cast<double>(parameter.size(1));
    return options_.adjust_lr_fn == "original" ? std::sqrt(std::max(1.0, rows / cols))
                                               : 0.2 * std::sqrt(std::max(rows, cols));
  }
  MuonOptions options_;
};

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  MuonOptions o;
  read_lr(in, o.lr);
  in.get("adjust_lr_fn", o.adjust_lr_fn, "adjustment of lr to a matrix's shape: match_rms_adamw or original")
      .require(o.adjust_lr_fn == "match_rms_adamw" || o.adjust_lr_fn == "original",
               "must be \"match_rms_adamw\" or \"original\"");
  in.get("momentum", o.momentum, "decay of the running mean of a matrix's gradients")
      .require(o.momentum >= 0 && o.momentum < 1, "must be in [0, 1)");
  in.get("nesterov", o.nesterov, "use Nesterov momentum");
  in.get("ns_steps", o.ns_steps, "Newton-Schulz iterations")
      .require(o.ns_steps > 0 && o.ns_steps < 100, "must be between 1 and 99");
  in.get("adamw_lr", o.adamw_lr, "learning rate of parameters that are not matrices; unset: lr")
      .require(!o.adamw_lr || (std::isfinite(*o.adamw_lr) && *o.adamw_lr >= 0), "must be 0 or more");
  read_adam(in, o.adam.beta1, o.adam.beta2, o.adam.eps);
  read_weight_decay(in, o.weight_decay);
  return std::make_unique<Muon>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("muon", make); }

}  // namespace

PEFT_PLUGIN("muon", "1.0.0", add)

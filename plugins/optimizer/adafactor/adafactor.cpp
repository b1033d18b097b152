// Adafactor: Adam whose second moment is stored as row and column means (Shazeer & Stern 2018, arXiv 1804.04235), as
// transformers' Adafactor with an external learning rate.
#include "../common_options.h"
#include "../per_parameter.h"

namespace {

using torch::Tensor;

struct AdafactorOptions {
  double lr = 1e-3, eps1 = 1e-30, eps2 = 1e-3, clip_threshold = 1, decay_rate = -0.8, weight_decay = 0;
  std::optional<double> beta1;
  bool scale_parameter = false;
};

double rms(const Tensor& x) { return x.norm().item<double>() / std::sqrt(static_cast<double>(x.numel())); }

class Adafactor final : public PerParameter {
 public:
  explicit Adafactor(AdafactorOptions options) : PerParameter("adafactor"), options_(options) {}

 protected:
  double default_lr() const override { return options_.lr; }
  double default_weight_decay() const override { return options_.weight_decay; }
  peft::StateDict make_state(const Tensor& parameter) const override {
    peft::StateDict state;
    if (parameter.dim() >= 2) {
      state["exp_avg_sq_row"] = at::zeros_like(parameter.select(-1, 0));
      state["exp_avg_sq_col"] = at::zeros_like(parameter.select(-2, 0));
    } else {
      state["exp_avg_sq"] = at::zeros_like(parameter);
    }
    if (options_.beta1) state["exp_avg"] = at::zeros_like(parameter);
    return state;
  }
  void update(Tensor parameter, const Tensor& gradient, ParamState& state, const peft::ParamGroup& group) override {
    const double scale = options_.scale_parameter ? std::max(options_.eps2, rms(parameter)) : 1, lr = group.lr * scale;
    const double beta2 = 1 - std::pow(static_cast<double>(state.step), options_.decay_rate);
    const Tensor squares = gradient.square().add_(options_.eps1);
    Tensor direction;
    if (parameter.dim() >= 2) {
      Tensor &row = state["exp_avg_sq_row"], &col = state["exp_avg_sq_col"];
      row.mul_(beta2).add_(squares.mean(-1), 1 - beta2);
      col.mul_(beta2).add_(squares.mean(-2), 1 - beta2);
      direction = (row / row.mean(-1, true)).rsqrt_().unsqueeze(-1) * col.unsqueeze(-2).rsqrt();
    } else {
      direction = state["exp_avg_sq"].mul_(beta2).add_(squares, 1 - beta2).rsqrt();
    }
    direction.mul_(gradient);
    direction.mul_(lr / std::max(1.0, rms(direction) / options_.clip_threshold));
    if (options_.beta1) direction = state["exp_avg"].mul_(*options_.beta1).add_(direction, 1 - *options_.beta1);
    if (*group.weight_decay != 0) parameter.mul_(1 - lr * *group.weight_decay);
    parameter.sub_(direction);
  }

 private:
  AdafactorOptions options_;
};

std::unique_ptr<peft::Optimizer> make(peft::Options& in) {
  AdafactorOptions o;
  read_lr(in, o.lr);
  in.get("beta1", o.beta1, "decay of the running mean of the updates; unset: no running mean")
      .require(!o.beta1 || (*o.beta1 >= 0 && *o.beta1 < 1), "must be in [0, 1)");
  in.get("decay_rate", o.decay_rate, "the running mean of the squares decays by 1 - step^decay_rate")
      .require(std::isfinite(o.decay_rate) && o.decay_rate < 0, "must be negative");
  read_positive(in, "clip_threshold", o.clip_threshold, "maximum root mean square of an update before lr");
  read_positive(in, "eps1", o.eps1, "added to the squared gradients");
  in.get("scale_parameter", o.scale_parameter, "scale updates by the parameter's root mean square");
  read_positive(in, "eps2", o.eps2, "minimum root mean square for scale_parameter");
  read_weight_decay(in, o.weight_decay);
  return std::make_unique<Adafactor>(o);
}

void add(peft::Registry& registry) { registry.add<peft::Optimizer>("adafactor", make); }

}  // namespace

PEFT_PLUGIN("adafactor", "1.0.0", add)

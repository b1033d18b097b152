#include "model/kernels.h"

#include <torch/torch.h>

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

torch::Dtype accumulation_type(const Tensor& x) {
  return x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
}

struct RmsNorm : Function<RmsNorm> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight, double eps) {
    const Tensor wide = x.to(accumulation_type(x));
    const Tensor rstd = wide.square().mean(-1, true).add_(eps).rsqrt_();
    ctx->save_for_backward({x, weight, rstd});
    return weight * (wide * rstd).to(x.scalar_type());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2], &dy = grads[0];
    const Tensor normal = x.to(rstd.scalar_type()) * rstd;
    Tensor dx, dweight;
    if (ctx->needs_input_grad(0)) {
      const Tensor g = (dy * weight).to(rstd.scalar_type());
      dx = (rstd * (g - normal * (g * normal).mean(-1, true))).to(x.scalar_type());
    }
    if (ctx->needs_input_grad(1)) {
      const Tensor product = dy.to(rstd.scalar_type()) * normal.to(x.scalar_type());
      dweight = product.reshape({-1, x.size(-1)}).sum(0).to(weight.scalar_type());
    }
    return {dx, dweight, Variable()};
  }
};

struct Swiglu : Function<Swiglu> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up) {
    ctx->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1], &dy = grads[0];
    return {at::silu_backward(dy * up, gate), at::silu(gate).mul_(dy)};
  }
};

/// [T, D/2] as [T, 1, D/2] in x's dtype.
Tensor half_angles(const Tensor& angles, const Tensor& x) {
  return angles.narrow(-1, 0, x.size(-1) / 2).unsqueeze(1).to(x.scalar_type());
}

Tensor rotated(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return at::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

struct Rotary : Function<Rotary> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& cos, const Variable& sin) {
    ctx->save_for_backward({cos, sin});
    return rotated(x, half_angles(cos, x), half_angles(sin, x));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor& dy = grads[0];
    return {rotated(dy, half_angles(saved[0], dy), -half_angles(saved[1], dy)), Variable(), Variable()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return RmsNorm::apply(x, weight, eps); }

Tensor swiglu(const Tensor& gate, const Tensor& up) { return Swiglu::apply(gate, up); }

Tensor apply_rotary(const Tensor& x, const Tensor& cos, const Tensor& sin) { return Rotary::apply(x, cos, sin); }

}  // namespace peft

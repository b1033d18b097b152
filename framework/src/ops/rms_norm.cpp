#include "ops/rms_norm.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include "ops/cpu/dispatch.h"
#include "peft/runtime/profile.h"

namespace peft {

Tensor rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& rstd) {
  PEFT_PROFILE_SCOPE("norms");
  if (!has_kernels(x, weight)) {
    const Tensor wide = x.to(accumulation_dtype(x));
    rstd = wide.square().mean(-1, true).add_(eps).rsqrt_();
    return weight * (wide * rstd).to(x.scalar_type());
  }
  const int64_t width = x.size(-1);
  const Tensor y = at::empty_like(x);
  rstd = at::empty({x.numel() / width}, x.options().dtype(torch::kFloat));
  with_kernels(x.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    in_parallel(rstd.numel(), width, [&](int64_t row, int64_t rows) {
      kernels.rms_norm(data<T>(x) + row * width, data<T>(weight), data<T>(y) + row * width, data<float>(rstd) + row,
                       rows, width, static_cast<float>(eps));
    });
  });
  return y;
}

Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& weight, const Tensor& rstd,
                         const Tensor& residual, Tensor* y) {
  PEFT_PROFILE_SCOPE("norms");
  if (!has_kernels(x, weight, dy)) {
    const Tensor normal = x.to(rstd.scalar_type()) * rstd;
    const Tensor g = (dy * weight).to(rstd.scalar_type());
    const Tensor dx = (rstd * (g - normal * (g * normal).mean(-1, true))).to(x.scalar_type());
    if (y != nullptr) *y = weight * normal.to(x.scalar_type());
    return residual.defined() ? dx + residual : dx;
  }
  const int64_t width = x.size(-1);
  const Tensor dx = at::empty_like(x), from = dy.contiguous();
  const Tensor other = residual.defined() ? residual.contiguous() : residual;
  if (y != nullptr) *y = at::empty_like(x);
  with_kernels(x.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    in_parallel(rstd.numel(), width, [&](int64_t row, int64_t rows) {
      const int64_t at = row * width;
      kernels.rms_norm_backward(data<T>(from) + at, data<T>(x) + at, data<T>(weight), data<float>(rstd) + row,
                                other.defined() ? data<T>(other) + at : nullptr, data<T>(dx) + at,
                                y != nullptr ? data<T>(*y) + at : nullptr, rows, width);
    });
  });
  return dx;
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct RmsNorm : Function<RmsNorm> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight, double eps) {
    const Tensor rows = x.contiguous();
    Tensor rstd;
    const Tensor y = rms_norm_forward(rows, weight.contiguous(), eps, rstd);
    ctx->save_for_backward({rows, weight, rstd});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2], &dy = grads[0];
    Tensor dx, dweight;
    if (ctx->needs_input_grad(0)) dx = rms_norm_backward(dy, x, weight.contiguous(), rstd);
    if (ctx->needs_input_grad(1)) {
      const auto wide = rstd.scalar_type();
      const Tensor factor = rstd.reshape(x.sizes().slice(0, x.dim() - 1)).unsqueeze(-1);
      const Tensor product = dy.to(wide) * (x.to(wide) * factor).to(x.scalar_type());
      dweight = product.reshape({-1, x.size(-1)}).sum(0).to(weight.scalar_type());
    }
    return {dx, dweight, Variable()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return RmsNorm::apply(x, weight, eps); }

}  // namespace peft

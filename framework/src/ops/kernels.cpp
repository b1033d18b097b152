#include "ops/kernels.h"

#include <torch/torch.h>

#include "ops/cpu/dispatch.h"
#include "ops/kernels_raw.h"
#include "peft/runtime/profile.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

torch::Dtype accumulation_type(const Tensor& x) {
  return x.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
}

}  // namespace

Tensor rms_norm_forward(const Tensor& x, const Tensor& weight, double eps, Tensor& rstd) {
  PEFT_PROFILE_SCOPE("norms");
  if (!vectorised(x, weight)) {
    const Tensor wide = x.to(accumulation_type(x));
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
  if (!vectorised(x, weight, dy)) {
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

Tensor swiglu_forward(const Tensor& gate, const Tensor& up) {
  PEFT_PROFILE_SCOPE("activation");
  const Tensor g = gate.contiguous(), u = up.contiguous();
  if (!vectorised(g, u)) return at::silu(g).mul_(u);
  const Tensor y = at::empty_like(g);
  with_kernels(g.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    in_parallel(g.numel(), 1,
                [&](int64_t at, int64_t n) { kernels.swiglu(data<T>(g) + at, data<T>(u) + at, data<T>(y) + at, n); });
  });
  return y;
}

std::pair<Tensor, Tensor> swiglu_backward(const Tensor& gradient, const Tensor& gate, const Tensor& up, Tensor* y) {
  PEFT_PROFILE_SCOPE("activation");
  const Tensor g = gate.contiguous(), u = up.contiguous(), dy = gradient.contiguous();
  if (!vectorised(g, u, dy)) {
    const Tensor active = at::silu(g);
    if (y != nullptr) *y = active * u;
    return {at::silu_backward(dy * u, g), active * dy};
  }
  Tensor dg = at::empty_like(g), du = at::empty_like(u);
  if (y != nullptr) *y = at::empty_like(g);
  with_kernels(g.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    in_parallel(g.numel(), 1, [&](int64_t at, int64_t n) {
      kernels.swiglu_backward(data<T>(dy) + at, data<T>(g) + at, data<T>(u) + at, data<T>(dg) + at, data<T>(du) + at,
                              y != nullptr ? data<T>(*y) + at : nullptr, n);
    });
  });
  return {dg, du};
}

namespace {

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

struct Swiglu : Function<Swiglu> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up) {
    ctx->save_for_backward({gate, up});
    return swiglu_forward(gate, up);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto [dgate, dup] = swiglu_backward(grads[0], saved[0], saved[1]);
    return {dgate, dup};
  }
};

/// direction: 1 forward, −1 back.
Tensor rotated(const Tensor& x, const Tensor& cos, const Tensor& sin, double direction) {
  PEFT_PROFILE_SCOPE("rotary embedding");
  const int64_t half = x.size(-1) / 2;
  const auto angles = [&](const Tensor& t) { return t.narrow(-1, 0, half).to(x.scalar_type()); };
  if (!vectorised(x)) {
    const auto halves = x.chunk(2, -1);
    const Tensor c = angles(cos).unsqueeze(1), s = angles(sin).unsqueeze(1) * direction;
    return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1);
  }
  const Tensor c = angles(cos).to(torch::kFloat).contiguous(), s = angles(sin).to(torch::kFloat).contiguous();
  const Tensor from = x.stride(-1) == 1 && x.stride(1) == x.size(2) ? x : x.contiguous();
  const Tensor y = at::empty(x.sizes(), x.options());
  const int64_t heads = x.size(1), width = heads * x.size(2), stride = from.stride(0);
  with_kernels(x.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    in_parallel(x.size(0), width, [&](int64_t token, int64_t tokens) {
      kernels.rotary(data<T>(from) + token * stride, stride, data<float>(c) + token * half,
                     data<float>(s) + token * half, half, data<T>(y) + token * width, tokens, heads, x.size(2),
                     static_cast<float>(direction));
    });
  });
  return y;
}

struct Rotary : Function<Rotary> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& cos, const Variable& sin) {
    ctx->save_for_backward({cos, sin});
    return rotated(x, cos, sin, 1);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    return {rotated(grads[0], saved[0], saved[1], -1), Variable(), Variable()};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps) { return RmsNorm::apply(x, weight, eps); }

Tensor swiglu(const Tensor& gate, const Tensor& up) { return Swiglu::apply(gate, up); }

Tensor apply_rotary(const Tensor& x, const Tensor& cos, const Tensor& sin) { return Rotary::apply(x, cos, sin); }

}  // namespace peft

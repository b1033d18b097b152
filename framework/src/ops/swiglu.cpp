#include "ops/swiglu.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include "ops/cpu/dispatch.h"
#include "peft/runtime/profile.h"

namespace peft {

Tensor swiglu_forward(const Tensor& gate, const Tensor& up) {
  PEFT_PROFILE_SCOPE("activation");
  const Tensor g = gate.contiguous(), u = up.contiguous();
  if (!has_kernels(g, u)) return at::silu(g).mul_(u);
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
  if (!has_kernels(g, u, dy)) {
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

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

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

}  // namespace

Tensor swiglu(const Tensor& gate, const Tensor& up) { return Swiglu::apply(gate, up); }

}  // namespace peft

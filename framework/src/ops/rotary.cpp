#include "ops/rotary.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include "ops/cpu/dispatch.h"
#include "peft/runtime/profile.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// direction: 1 forward, -1 backward.
Tensor rotated(const Tensor& x, const Tensor& cos, const Tensor& sin, double direction) {
  PEFT_PROFILE_SCOPE("rotary embedding");
  const int64_t half = x.size(-1) / 2;
  const auto angles = [&](const Tensor& t) { return t.narrow(-1, 0, half).to(x.scalar_type()); };
  if (!has_kernels(x)) {
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

Tensor apply_rotary(const Tensor& x, const Tensor& cos, const Tensor& sin) { return Rotary::apply(x, cos, sin); }

}  // namespace peft

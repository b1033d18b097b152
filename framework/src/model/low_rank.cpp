#include "model/low_rank.h"

#include <torch/torch.h>

#include "model/kernels.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

struct LowRankLinear : torch::autograd::Function<LowRankLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Variable& weight,
                          const std::optional<Tensor>& bias, const Variable& A, const Variable& B, double scale) {
    const Tensor rows = x.reshape({-1, x.size(-1)});
    const Tensor a = A.to(x.scalar_type()), b = B.to(x.scalar_type());
    const Tensor down = product(rows, a.t());
    Tensor y = affine(rows, weight, bias.value_or(Tensor()));
    y.addmm_(down, b.t(), 1, scale);
    ctx->save_for_backward({rows, weight, A, B, down});
    ctx->saved_data["scale"] = scale;
    ctx->saved_data["needs_x"] = x.requires_grad();
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    return y.view(shape);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor &rows = saved[0], &weight = saved[1], &A = saved[2], &B = saved[3], &down = saved[4];
    const double scale = ctx->saved_data["scale"].toDouble();
    const Tensor dy = grads[0].reshape({-1, weight.size(0)});
    const auto dtype = rows.scalar_type();
    const Tensor d_down = product(dy, B.to(dtype)).mul_(scale);  // [rows, r]
    // Rank first: with the few rows of r on the left the product is several times faster.
    const Tensor dA = product(d_down.t(), rows).to(A.scalar_type());
    const Tensor dB =
        product(down.t(), dy).mul_(scale).t().to(B.scalar_type(), false, false, at::MemoryFormat::Contiguous);
    Tensor dx;
    if (ctx->saved_data["needs_x"].toBool()) {
      dx = product(dy, weight);
      dx.addmm_(d_down, A.to(dtype));
      auto shape = grads[0].sizes().vec();
      shape.back() = weight.size(1);
      dx = dx.view(shape);
    }
    return {dx, Variable(), Variable(), dA, dB, Variable()};
  }
};

}  // namespace

Tensor low_rank_linear(const Tensor& x, const Tensor& weight, const Tensor& bias, const LowRank& update) {
  // An undefined tensor among a function's inputs makes torch throw.
  const auto given = bias.defined() ? std::optional(bias) : std::nullopt;
  return LowRankLinear::apply(x, weight, given, update.A, update.B, update.scale);
}

}  // namespace peft

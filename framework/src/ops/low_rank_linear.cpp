#include "ops/low_rank_linear.h"

#include <torch/torch.h>

#include "ops/kernels.h"
#include "ops/kernels_raw.h"
#include "peft/runtime/profile.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

Tensor frozen_product(const Tensor& rows, const AdaptedLinear& linear) {
  PEFT_PROFILE_SCOPE("products with the base");
  return frozen_linear(rows, linear.weight, linear.bias);
}

/// rows [T, in] → [T, out]. `down`: rows·Aᵀ, for the backward pass.
Tensor forward(const AdaptedLinear& linear, const Tensor& rows, Tensor& down) {
  Tensor y = frozen_product(rows, linear);
  if (!linear.update) return y;
  PEFT_PROFILE_SCOPE("products with the adapter");
  const auto dtype = rows.scalar_type();
  down = gemm(rows, linear.update->A.to(dtype).t());
  y.addmm_(down, linear.update->B.to(dtype).t(), 1, linear.update->scale);
  return y;
}

/// [T, r]: the gradient of rows·Aᵀ; undefined without an update.
Tensor update_gradient(const AdaptedLinear& linear, const Tensor& dy) {
  if (!linear.update) return {};
  PEFT_PROFILE_SCOPE("products with the adapter");
  return gemm(dy, linear.update->B.to(dy.scalar_type())).mul_(linear.update->scale);
}

/// Adds the gradient of rows into `drows`, made where it is undefined.
void add_row_gradient(const AdaptedLinear& linear, const Tensor& dy, const Tensor& d_down, Tensor& drows) {
  {
    PEFT_PROFILE_SCOPE("products with the base");
    if (drows.defined())
      add_gemm(drows, dy, linear.weight);
    else
      drows = gemm(dy, linear.weight);
  }
  if (!linear.update) return;
  PEFT_PROFILE_SCOPE("products with the adapter");
  drows.addmm_(d_down, linear.update->A.to(dy.scalar_type()));
}

/// Appends the gradients of A and B. Rank first: with the few rows of r on the left the product is several times
/// faster.
void append_update_gradients(const AdaptedLinear& linear, const Tensor& rows, const Tensor& down, const Tensor& dy,
                             const Tensor& d_down, variable_list& grads) {
  if (!linear.update) return;
  PEFT_PROFILE_SCOPE("products with the adapter");
  const auto& [A, B, scale] = *linear.update;
  grads.push_back(A.requires_grad() ? gemm(d_down.t(), rows).to(A.scalar_type()) : Tensor());
  grads.push_back(gemm(down.t(), dy).mul_(scale).t().to(B.scalar_type(), false, false, at::MemoryFormat::Contiguous));
}

/// What the backward pass needs of the layers and no gradient flows to, or flows by way of the function's inputs.
struct Parts : torch::CustomClassHolder {
  std::vector<AdaptedLinear> linears;
  Tensor norm;
  double eps = 0;
};

void keep(AutogradContext* ctx, const c10::intrusive_ptr<Parts>& parts) {
  ctx->saved_data["parts"] = c10::IValue::make_capsule(parts);
}
c10::intrusive_ptr<Parts> kept(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Parts>(ctx->saved_data["parts"].toCapsule());
}

/// A and B of each: a function's inputs, so that it has edges to them.
std::vector<Tensor> parameters(const std::vector<AdaptedLinear>& linears) {
  std::vector<Tensor> all;
  for (const AdaptedLinear& linear : linears)
    if (linear.update) all.insert(all.end(), {linear.update->A, linear.update->B});
  return all;
}

struct LowRankLinear : Function<LowRankLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& x, at::TensorList,
                          const c10::intrusive_ptr<Parts>& parts) {
    const Tensor rows = x.reshape({-1, x.size(-1)});
    Tensor down;
    const Tensor y = peft::forward(parts->linears.front(), rows, down);
    ctx->save_for_backward({rows, down});
    keep(ctx, parts);
    auto shape = x.sizes().vec();
    shape.back() = y.size(1);
    return y.view(shape);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const AdaptedLinear& linear = kept(ctx)->linears.front();
    const Tensor dy = grads[0].reshape({-1, linear.weight.size(0)});
    const Tensor d_down = update_gradient(linear, dy);
    variable_list out(1);
    if (ctx->needs_input_grad(0)) {
      Tensor dx;
      add_row_gradient(linear, dy, d_down, dx);
      auto shape = grads[0].sizes().vec();
      shape.back() = linear.weight.size(1);
      out[0] = dx.view(shape);
    }
    append_update_gradients(linear, saved[0], saved[1], dy, d_down, out);
    out.emplace_back();  // of `parts`
    return out;
  }
};

struct NormedLinears : Function<NormedLinears> {
  /// x itself comes first: what is added to it later sends its gradient back through here, to be summed in passing.
  static variable_list forward(AutogradContext* ctx, const Variable& x, at::TensorList,
                               const c10::intrusive_ptr<Parts>& parts) {
    Tensor rstd;
    const Tensor normal = rms_norm_forward(x, parts->norm, parts->eps, rstd);
    variable_list saved = {x, rstd}, out = {x};
    for (const AdaptedLinear& linear : parts->linears) {
      Tensor down;
      out.push_back(peft::forward(linear, normal, down));
      saved.push_back(down);
    }
    ctx->save_for_backward(saved);
    keep(ctx, parts);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto parts = kept(ctx);
    const auto& linears = parts->linears;
    const Tensor &x = saved[0], &rstd = saved[1];
    const bool passes_on = ctx->needs_input_grad(0);
    variable_list out(1), dy, d_downs;
    Tensor normal, dnormal, unused;
    for (std::size_t i = 0; i < linears.size(); ++i) {
      dy.push_back(grads[i + 1].contiguous());
      d_downs.push_back(update_gradient(linears[i], dy[i]));
      if (passes_on) add_row_gradient(linears[i], dy[i], d_downs[i], dnormal);
    }
    if (passes_on)
      out[0] = rms_norm_backward(dnormal, x, parts->norm, rstd, grads[0], &normal);
    else
      normal = rms_norm_forward(x, parts->norm, parts->eps, unused);
    for (std::size_t i = 0; i < linears.size(); ++i)
      append_update_gradients(linears[i], normal, saved[i + 2], dy[i], d_downs[i], out);
    out.emplace_back();  // of `parts`
    return out;
  }
};

struct GatedLinear : Function<GatedLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up, at::TensorList,
                          const c10::intrusive_ptr<Parts>& parts) {
    Tensor down;
    const Tensor y = peft::forward(parts->linears.front(), swiglu_forward(gate, up), down);
    ctx->save_for_backward({gate, up, down});
    keep(ctx, parts);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const AdaptedLinear& linear = kept(ctx)->linears.front();
    const Tensor dy = grads[0].contiguous(), d_down = update_gradient(linear, dy);
    variable_list out(2);
    Tensor active;
    if (ctx->needs_input_grad(0) || ctx->needs_input_grad(1)) {
      Tensor dactive;
      add_row_gradient(linear, dy, d_down, dactive);
      std::tie(out[0], out[1]) = swiglu_backward(dactive, saved[0], saved[1], &active);
    } else {
      active = swiglu_forward(saved[0], saved[1]);
    }
    append_update_gradients(linear, active, saved[2], dy, d_down, out);
    out.emplace_back();  // of `parts`
    return out;
  }
};

c10::intrusive_ptr<Parts> parts_of(const std::vector<AdaptedLinear>& linears) {
  auto parts = c10::make_intrusive<Parts>();
  parts->linears = linears;
  return parts;
}

}  // namespace

Tensor low_rank_linear(const Tensor& x, const AdaptedLinear& linear) {
  return LowRankLinear::apply(x, at::TensorList(parameters({linear})), parts_of({linear}));
}

std::vector<Tensor> normed_linears(const Tensor& x, const Tensor& norm, double eps,
                                   const std::vector<AdaptedLinear>& linears) {
  auto parts = parts_of(linears);
  parts->norm = norm.contiguous();
  parts->eps = eps;
  return NormedLinears::apply(x.contiguous(), at::TensorList(parameters(linears)), parts);
}

Tensor gated_linear(const Tensor& gate, const Tensor& up, const AdaptedLinear& down) {
  return GatedLinear::apply(gate, up, at::TensorList(parameters({down})), parts_of({down}));
}

}  // namespace peft

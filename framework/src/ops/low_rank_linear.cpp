#include "ops/low_rank_linear.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include "ops/matmul.h"
#include "ops/rms_norm.h"
#include "ops/swiglu.h"
#include "peft/runtime/profile.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::Variable;
using torch::autograd::variable_list;

Tensor frozen_product(const Tensor& rows, const AdaptedLinear& linear) {
  PEFT_PROFILE_SCOPE("products with the base");
  return linear.weight->linear(rows, linear.bias);
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

/// Adds the gradient of rows into `drows`, which is created if it is undefined.
void add_row_gradient(const AdaptedLinear& linear, const Tensor& dy, const Tensor& d_down, Tensor& drows) {
  {
    PEFT_PROFILE_SCOPE("products with the base");
    if (drows.defined())
      linear.weight->add_matmul(drows, dy);
    else
      drows = linear.weight->matmul(dy);
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

/// What the backward pass needs in addition to the saved tensors: gradients reach A and B through the function's
/// inputs.
struct SavedContext : torch::CustomClassHolder {
  std::vector<AdaptedLinear> linears;
  Tensor norm;
  double eps = 0;
};

void save_context(AutogradContext* ctx, const c10::intrusive_ptr<SavedContext>& context) {
  ctx->saved_data["context"] = c10::IValue::make_capsule(context);
}
c10::intrusive_ptr<SavedContext> saved_context(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<SavedContext>(ctx->saved_data["context"].toCapsule());
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
                          const c10::intrusive_ptr<SavedContext>& context) {
    const Tensor rows = x.reshape({-1, x.size(-1)});
    Tensor down;
    const Tensor y = peft::forward(context->linears.front(), rows, down);
    ctx->save_for_backward({rows, down});
    save_context(ctx, context);
    auto shape = x.sizes().vec();
    shape.back() = y.size(1);
    return y.view(shape);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const AdaptedLinear& linear = saved_context(ctx)->linears.front();
    const Tensor dy = grads[0].reshape({-1, linear.weight->rows()});
    const Tensor d_down = update_gradient(linear, dy);
    variable_list out(1);
    if (ctx->needs_input_grad(0)) {
      Tensor dx;
      add_row_gradient(linear, dy, d_down, dx);
      auto shape = grads[0].sizes().vec();
      shape.back() = linear.weight->columns();
      out[0] = dx.view(shape);
    }
    append_update_gradients(linear, saved[0], saved[1], dy, d_down, out);
    out.emplace_back();  // of `context`
    return out;
  }
};

struct NormedLinears : Function<NormedLinears> {
  /// Returns x first: the gradient of the residual connection then arrives here and is added in place.
  static variable_list forward(AutogradContext* ctx, const Variable& x, at::TensorList,
                               const c10::intrusive_ptr<SavedContext>& context) {
    Tensor rstd;
    const Tensor normal = rms_norm_forward(x, context->norm, context->eps, rstd);
    variable_list saved = {x, rstd}, out = {x};
    for (const AdaptedLinear& linear : context->linears) {
      Tensor down;
      out.push_back(peft::forward(linear, normal, down));
      saved.push_back(down);
    }
    ctx->save_for_backward(saved);
    save_context(ctx, context);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const auto context = saved_context(ctx);
    const auto& linears = context->linears;
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
      out[0] = rms_norm_backward(dnormal, x, context->norm, rstd, grads[0], &normal);
    else
      normal = rms_norm_forward(x, context->norm, context->eps, unused);
    for (std::size_t i = 0; i < linears.size(); ++i)
      append_update_gradients(linears[i], normal, saved[i + 2], dy[i], d_downs[i], out);
    out.emplace_back();  // of `context`
    return out;
  }
};

struct GatedLinear : Function<GatedLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& gate, const Variable& up, at::TensorList,
                          const c10::intrusive_ptr<SavedContext>& context) {
    Tensor down;
    const Tensor y = peft::forward(context->linears.front(), swiglu_forward(gate, up), down);
    ctx->save_for_backward({gate, up, down});
    save_context(ctx, context);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto saved = ctx->get_saved_variables();
    const AdaptedLinear& linear = saved_context(ctx)->linears.front();
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
    out.emplace_back();  // of `context`
    return out;
  }
};

c10::intrusive_ptr<SavedContext> context_of(const std::vector<AdaptedLinear>& linears) {
  auto context = c10::make_intrusive<SavedContext>();
  context->linears = linears;
  return context;
}

}  // namespace

Tensor low_rank_linear(const Tensor& x, const AdaptedLinear& linear) {
  return LowRankLinear::apply(x, at::TensorList(parameters({linear})), context_of({linear}));
}

std::vector<Tensor> normed_linears(const Tensor& x, const Tensor& norm, double eps,
                                   const std::vector<AdaptedLinear>& linears) {
  auto context = context_of(linears);
  context->norm = norm.contiguous();
  context->eps = eps;
  return NormedLinears::apply(x.contiguous(), at::TensorList(parameters(linears)), context);
}

Tensor gated_linear(const Tensor& gate, const Tensor& up, const AdaptedLinear& down) {
  return GatedLinear::apply(gate, up, at::TensorList(parameters({down})), context_of({down}));
}

}  // namespace peft

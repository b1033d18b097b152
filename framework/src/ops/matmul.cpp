#include "ops/matmul.h"

#include <ATen/autocast_mode.h>
#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>

#include "ops/fp32_products.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Floats of one part in fp32: small compared to the activations, large enough for the full speed of the product.
constexpr int64_t kPart = int64_t{4} << 20;
// With fewer rows, converting the other matrix costs more than it gains.
constexpr int64_t kRows = 4;
// With fewer rows, oneDNN is not faster. Neither is it for a sum of a product and another matrix, which takes it
// another pass, if the product is not deep.
constexpr int64_t kOnednnRows = 32, kOnednnSumDepth = 512;

bool emulates_bf16() {
#if defined(__x86_64__)
  static const bool emulates = !__builtin_cpu_supports("avx512bf16");
  return emulates;
#else
  return false;
#endif
}

bool widens(const Tensor& a, const Tensor& b) {
  return emulates_bf16() && a.is_cpu() && a.scalar_type() == torch::kBFloat16 && b.scalar_type() == torch::kBFloat16 &&
         a.numel() >= kRows * a.size(-1);
}

/// True for what oneDNN reads as it is: rows or columns that follow one another.
bool is_dense(const Tensor& matrix) { return matrix.is_contiguous() || matrix.t().is_contiguous(); }

bool uses_onednn(const Tensor& a, const Tensor& b) {
  return a.is_cpu() && a.scalar_type() == torch::kFloat && b.scalar_type() == torch::kFloat &&
         a.numel() >= kOnednnRows * a.size(-1) && is_dense(b) && fp32_products() == Fp32Products::onednn &&
         !at::autocast::is_autocast_enabled(at::kCPU);
}

Tensor widened_product(const Tensor& a, const Tensor& b) {
  const int64_t depth = b.size(0), columns = b.size(1);
  const auto wide = [](const Tensor& t) { return t.to(torch::kFloat); };
  if (b.numel() <= kPart) return at::mm(wide(a), wide(b)).to(torch::kBFloat16);
  if (columns > depth) {
    const Tensor left = wide(a), out = at::empty({a.size(0), columns}, a.options());
    const int64_t part = std::max<int64_t>(1, kPart / depth);
    for (int64_t j = 0; j < columns; j += part) {
      const int64_t n = std::min(part, columns - j);
      out.narrow(1, j, n).copy_(at::mm(left, wide(b.narrow(1, j, n))));
    }
    return out;
  }
  Tensor sum = at::zeros({a.size(0), columns}, a.options().dtype(torch::kFloat));
  const int64_t part = std::max<int64_t>(1, kPart / columns);
  for (int64_t k = 0; k < depth; k += part) {
    const int64_t n = std::min(part, depth - k);
    sum.addmm_(wide(a.narrow(1, k, n)), wide(b.narrow(0, k, n)));
  }
  return sum.to(torch::kBFloat16);
}

struct FrozenLinear : torch::autograd::Function<FrozenLinear> {
  static Variable forward(AutogradContext* ctx, const Variable& x, const Tensor& weight,
                          const std::optional<Tensor>& bias) {
    ctx->save_for_backward({weight});
    auto shape = x.sizes().vec();
    shape.back() = weight.size(0);
    Tensor y = gemm(x.reshape({-1, x.size(-1)}), weight.t());
    if (bias) y.add_(*bias);
    return y.view(shape);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor weight = ctx->get_saved_variables()[0];
    auto shape = grads[0].sizes().vec();
    shape.back() = weight.size(1);
    return {gemm(grads[0].reshape({-1, weight.size(0)}), weight).view(shape), Variable(), Variable()};
  }
};

}  // namespace

Tensor gemm(const Tensor& a, const Tensor& b) {
  if (widens(a, b)) return widened_product(a, b);
  return uses_onednn(a, b) ? onednn_product(a, b) : at::mm(a, b);
}

void add_gemm(Tensor& sum, const Tensor& a, const Tensor& b) {
  if (widens(a, b))
    sum.add_(widened_product(a, b));
  else if (a.size(-1) >= kOnednnSumDepth && uses_onednn(a, b))
    sum.add_(onednn_product(a, b));
  else
    sum.addmm_(a, b);
}

Tensor frozen_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const bool trains = weight.requires_grad() || (bias.defined() && bias.requires_grad());
  if (trains || !(widens(x, weight) || uses_onednn(x, weight))) return at::linear(x, weight, bias);
  // An undefined tensor among a function's inputs makes torch throw.
  return FrozenLinear::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
}

}  // namespace peft

#include <torch/torch.h>

#include <algorithm>

#include "model/kernels.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

// Few enough that the logits stay small beside the activations, enough that reading W once for each chunk is cheap.
constexpr int64_t kRows = 256;

/// Turns logits [n, V] into their gradient, in place where dtypes allow it; returns it and the sum of the losses.
std::pair<Tensor, Tensor> loss_and_gradient(const Tensor& logits, const Tensor& targets) {
  Tensor wide = logits.scalar_type() == torch::kDouble ? logits : logits.to(torch::kFloat);
  const Tensor column = targets.unsqueeze(1);
  const Tensor target_logits = wide.gather(1, column);
  const Tensor norm = wide.logsumexp(1, true);
  const Tensor loss = (norm - target_logits).sum();
  wide.sub_(norm).exp_();
  wide.scatter_add_(1, column, wide.new_full({1, 1}, -1).expand({column.size(0), 1}));
  return {loss, wide};
}

struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static Variable forward(AutogradContext* ctx, const Variable& hidden, const Variable& weight, const Tensor& targets,
                          bool needs_grad) {
    const auto wide = hidden.scalar_type() == torch::kDouble ? torch::kDouble : torch::kFloat;
    Tensor sum = at::zeros({}, hidden.options().dtype(wide));
    Tensor gradient = needs_grad ? at::empty_like(hidden, at::MemoryFormat::Contiguous) : Tensor();
    for (int64_t row = 0; row < hidden.size(0); row += kRows) {
      const int64_t n = std::min(kRows, hidden.size(0) - row);
      const Tensor logits = at::linear(hidden.narrow(0, row, n), weight);
      const auto [loss, dlogits] = loss_and_gradient(logits, targets.narrow(0, row, n));
      sum += loss;
      if (needs_grad) gradient.narrow(0, row, n).copy_(at::mm(dlogits.to(weight.scalar_type()), weight));
    }
    ctx->save_for_backward({gradient});
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor gradient = ctx->get_saved_variables()[0];
    return {gradient * grads[0].to(gradient.scalar_type()), Variable(), Variable(), Variable()};
  }
};

}  // namespace

Tensor linear_cross_entropy_sum(const Tensor& hidden, const Tensor& weight, const Tensor& targets) {
  const bool needs_grad = at::GradMode::is_enabled() && hidden.requires_grad();
  return LinearCrossEntropy::apply(hidden, weight.detach(), targets, needs_grad);
}

}  // namespace peft

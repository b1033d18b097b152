#include "ops/cross_entropy.h"

#include <torch/autograd.h>
#include <torch/types.h>

#include <algorithm>

#include "ops/cpu/dispatch.h"
#include "ops/logit_chunks.h"
#include "peft/runtime/memory.h"
#include "peft/runtime/profile.h"

namespace peft {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Variable;
using torch::autograd::variable_list;

/// Sum of the losses of logits [n, V]. Overwrites the logits with their gradient if `gradient` is set.
Tensor loss_by_torch(Tensor& logits, const Tensor& targets, bool gradient) {
  const auto dtype = logits.scalar_type();
  Tensor wide = logits.to(accumulation_dtype(logits));
  const Tensor column = targets.unsqueeze(1);
  const Tensor norm = wide.logsumexp(1, true);
  const Tensor loss = (norm - wide.gather(1, column)).sum();
  if (gradient) {
    wide.sub_(norm).exp_();
    wide.scatter_add_(1, column, wide.new_full({1, 1}, -1).expand({column.size(0), 1}));
    logits = wide.to(dtype);
  }
  return loss;
}

Tensor loss_of(Tensor& logits, const Tensor& targets, bool gradient) {
  if (!has_kernels(logits)) return loss_by_torch(logits, targets, gradient);
  const int64_t width = logits.size(1);
  const Tensor losses = at::empty({logits.size(0)}, logits.options().dtype(torch::kFloat));
  with_kernels(logits.scalar_type(), [&]<class T>(const simd::Kernels<T>& kernels, T*) {
    in_parallel(logits.size(0), width, [&](int64_t first, int64_t rows) {
      for (int64_t row = first; row < first + rows; ++row) {
        data<float>(losses)[row] =
            kernels.cross_entropy(data<T>(logits) + row * width, width, data<int64_t>(targets)[row], gradient);
      }
    });
  });
  return losses.sum();
}

/// The weight need not outlive forward(): the backward pass only scales the gradient made there.
struct LinearCrossEntropy : torch::autograd::Function<LinearCrossEntropy> {
  static Variable forward(AutogradContext* ctx, const Variable& hidden, const FrozenWeight* weight,
                          const Tensor& targets, bool needs_grad) {
    PEFT_PROFILE_SCOPE("head and loss");
    Tensor sum = at::zeros({}, hidden.options().dtype(accumulation_dtype(hidden)));
    Tensor gradient = needs_grad ? at::empty_like(hidden, at::MemoryFormat::Contiguous) : Tensor();
    const Tensor labels = targets.contiguous();
    for_logit_chunks(hidden.size(0), [&](int64_t row, int64_t n) {
      const MemoryScope scope(MemoryComponent::logits);
      Tensor logits = weight->matmul_t(hidden.narrow(0, row, n));
      sum += loss_of(logits, labels.narrow(0, row, n), needs_grad);
      if (needs_grad) gradient.narrow(0, row, n).copy_(weight->matmul(logits));
    });
    ctx->save_for_backward({gradient});
    return sum;
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const Tensor gradient = ctx->get_saved_variables()[0];
    return {gradient * grads[0].to(gradient.scalar_type()), Variable(), Variable(), Variable()};
  }
};

}  // namespace

Tensor linear_cross_entropy_sum(const Tensor& hidden, const FrozenWeight& weight, const Tensor& targets) {
  TORCH_CHECK(hidden.dim() == 2 && targets.dim() == 1 && targets.size(0) == hidden.size(0) &&
                  targets.scalar_type() == torch::kLong,
              "cross-entropy: hidden ", hidden.sizes(), " and int64 targets ", targets.sizes(), " do not fit together");
  // An index past the vocabulary would be read and written outside the logits.
  TORCH_CHECK(
      targets.numel() == 0 || (targets.min().item<int64_t>() >= 0 && targets.max().item<int64_t>() < weight.rows()),
      "cross-entropy: a target lies outside the vocabulary of ", weight.rows());
  const bool needs_grad = at::GradMode::is_enabled() && hidden.requires_grad();
  return LinearCrossEntropy::apply(hidden, &weight, targets, needs_grad);
}

}  // namespace peft

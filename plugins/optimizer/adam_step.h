#pragma once

#include <torch/torch.h>

#include <cmath>

struct AdamOptions {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
};

/// One step of torch.optim's AdamW; `step` counts the gradients so far, including this one.
inline void adamw_step(torch::Tensor parameter, const torch::Tensor& gradient, torch::Tensor exp_avg,
                       torch::Tensor exp_avg_sq, int64_t step, const AdamOptions& options, double lr,
                       double weight_decay) {
  exp_avg.mul_(options.beta1).add_(gradient, 1 - options.beta1);
  exp_avg_sq.mul_(options.beta2).addcmul_(gradient, gradient, 1 - options.beta2);
  const double correction1 = 1 - std::pow(options.beta1, step), correction2 = 1 - std::pow(options.beta2, step);
  if (weight_decay != 0) parameter.mul_(1 - lr * weight_decay);
  parameter.addcdiv_(exp_avg, (exp_avg_sq.sqrt() / std::sqrt(correction2)).add_(options.eps), -lr / correction1);
}

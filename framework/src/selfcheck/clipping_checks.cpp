// What peft/train/clipping.h promises.
#include <torch/types.h>
#include <torch/utils.h>

#include <cmath>
#include <limits>

#include "selfcheck/checks.h"

namespace peft {

namespace {

/// Two groups: a matrix and a vector; a matrix, and a parameter without a gradient. The gradients are random, of
/// `scale`.
std::vector<ParamGroup> random_groups(double scale, uint64_t seed, torch::Dtype dtype = torch::kFloat) {
  auto generator = at::detail::createCPUGenerator(seed);
  const auto leaf = [&](at::IntArrayRef shape, bool has_gradient) {
    Tensor parameter = torch::randn(shape, generator).to(dtype).requires_grad_();
    if (has_gradient) parameter.mutable_grad() = (torch::randn(shape, generator) * scale).to(dtype);
    return parameter;
  };
  ParamGroup first, second;
  first.parameters = {{"a", leaf({7, 5}, true)}, {"b", leaf({6}, true)}};
  second.parameters = {{"c", leaf({3, 8}, true)}, {"idle", leaf({4}, false)}};
  return {first, second};
}

std::vector<Tensor> copies(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> all;
  for (const Tensor& tensor : tensors) all.push_back(tensor.detach().clone());
  return all;
}

std::string check_norm(GradientClipping& clipping, double scale, torch::Dtype dtype) {
  const std::vector<ParamGroup> groups = random_groups(scale, 1, dtype);
  const std::vector<Tensor> parameters = parameters_of(groups), before = copies(parameters);
  const double norm = global_norm(gradients(parameters)), returned = clipping.clip(groups);
  if (!(std::abs(returned - norm) <= 1e-5 * norm))
    return "it returned " + text_of_number(returned) + ", the norm was " + text_of_number(norm);
  const double after = global_norm(gradients(parameters));
  if (!(after <= norm * (1 + 1e-5)))
    return "it raised the norm from " + text_of_number(norm) + " to " + text_of_number(after);
  if (parameters.back().grad().defined()) return "it gave a gradient to a parameter that had none";
  for (const Tensor& gradient : gradients(parameters))
    if (gradient.scalar_type() != dtype) return "it changed the dtype of a gradient";
  return difference(before, copies(parameters)).empty() ? "" : "it changed a parameter";
}

/// Zeros, no gradient at all, no parameter at all.
std::string check_zero(GradientClipping& clipping) {
  const std::vector<ParamGroup> zeros = random_groups(0, 1);
  for (const std::vector<ParamGroup>& groups : {zeros, std::vector<ParamGroup>{}}) {
    if (const double norm = clipping.clip(groups); norm != 0) return "it returned " + text_of_number(norm);
    for (const Tensor& gradient : gradients(parameters_of(groups)))
      if (!at::equal(gradient, at::zeros_like(gradient))) return "gradients of 0 are no longer 0";
  }
  return "";
}

std::string check_nonfinite(GradientClipping& clipping, float value) {
  const std::vector<ParamGroup> groups = random_groups(1, 1);
  const std::vector<Tensor> all = gradients(parameters_of(groups));
  Tensor(all.front()).view(-1)[3] = value;
  const std::vector<Tensor> before = copies(all);
  if (const double norm = clipping.clip(groups); std::isfinite(norm))
    return "it returned " + text_of_number(norm) + ", so that the step would be taken";
  return difference(before, all).empty() ? "" : "it changed gradients";
}

}  // namespace

void run_checks(Kind<GradientClipping>, const Subject& subject, Checks& checks) {
  for (const auto& [name, dtype] : {std::pair{"fp32", torch::kFloat}, {"fp64", torch::kDouble}})
    checks.check("it bounds the gradients, in " + std::string(name),
                 "the norm before is returned and does not rise, parameters do not change",
                 [&, dtype = dtype]() -> std::string {
                   const auto clipping = subject.make<GradientClipping>();
                   for (const double scale : {1e-4, 1.0, 1.0, 1.0, 1e4}) {
                     const std::string problem = check_norm(*clipping, scale, dtype);
                     if (!problem.empty()) return problem;
                   }
                   return "";
                 });
  checks.check("gradients of 0 remain 0", "also without any gradient",
               [&] { return check_zero(*subject.make<GradientClipping>()); });
  checks.check("an infinite gradient skips the step", "a norm that is not finite, nothing changed", [&] {
    return check_nonfinite(*subject.make<GradientClipping>(), std::numeric_limits<float>::infinity());
  });
  checks.check("a gradient that is NaN skips the step", "a norm that is not finite, nothing changed", [&] {
    return check_nonfinite(*subject.make<GradientClipping>(), std::numeric_limits<float>::quiet_NaN());
  });
  check_state<GradientClipping>(subject, checks, 40, [](GradientClipping& object, int64_t step) {
    const auto groups = random_groups(step % 7 == 6 ? 30 : 1, static_cast<uint64_t>(step));
    std::vector<Tensor> results = {torch::tensor(object.clip(groups), torch::kDouble)};
    for (const Tensor& gradient : gradients(parameters_of(groups))) results.push_back(gradient);
    return results;
  });
}

}  // namespace peft

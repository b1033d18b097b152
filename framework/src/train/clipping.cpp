#include "peft/train/clipping.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "plugin/plugin_call.h"

namespace peft {

GradientClipping::~GradientClipping() = default;

double GradientClipping::clip(const std::vector<ParamGroup>& groups) {
  return detail::call_plugin(*this, "clip", [&] {
    const double norm = do_clip(groups);
    if (norm < 0) throw std::logic_error("the norm of the gradients is " + std::to_string(norm));
    if (norm == 0 && global_norm(gradients(parameters_of(groups))) != 0)
      throw std::logic_error("it returned 0, but the gradients are not 0");
    return norm;
  });
}

std::vector<Tensor> gradients(const std::vector<Tensor>& parameters) {
  std::vector<Tensor> found;
  found.reserve(parameters.size());
  for (const Tensor& parameter : parameters)
    if (parameter.grad().defined()) found.push_back(parameter.grad());
  return found;
}

namespace {

double norm_in(torch::Dtype dtype, const std::vector<Tensor>& tensors, double p) {
  std::vector<Tensor> norms = at::_foreach_norm(tensors, p, dtype);
  for (Tensor& norm : norms) norm = norm.to(norms.front().device());
  return at::linalg_vector_norm(at::stack(norms), p).item<double>();
}

}  // namespace

double global_norm(const std::vector<Tensor>& tensors, double p) {
  if (tensors.empty()) return 0;
  const torch::NoGradGuard no_grad;
  torch::Dtype dtype = torch::kFloat32;
  for (const Tensor& tensor : tensors) dtype = c10::promoteTypes(dtype, tensor.scalar_type());
  const double norm = norm_in(dtype, tensors, p);
  // Squares of finite fp32 values may overflow; only then a second pass is worth its time.
  if (std::isfinite(norm) || dtype == torch::kFloat64) return norm;
  return norm_in(torch::kFloat64, tensors, p);
}

}  // namespace peft

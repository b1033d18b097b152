#include <cmath>
#include <limits>
#include <numeric>

#include "peft/plugin.h"

namespace {

struct AgcOptions {
  double clipping = 0.01;
  double eps = 1e-3;
};

/// The norm of each row [rows, 1, …], or of an entire vector or scalar.
torch::Tensor unit_norms(const torch::Tensor& x) {
  const torch::Dtype dtype = c10::promoteTypes(torch::kFloat32, x.scalar_type());
  if (x.dim() <= 1) return at::linalg_vector_norm(x, 2, {}, false, dtype);
  std::vector<int64_t> inner(x.dim() - 1);
  std::iota(inner.begin(), inner.end(), 1);
  return at::linalg_vector_norm(x, 2, inner, true, dtype);
}

class Agc final : public peft::GradientClipping {
 public:
  explicit Agc(AgcOptions options) : options_(options) {}

 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    const torch::NoGradGuard no_grad;
    const std::vector<torch::Tensor> parameters = peft::parameters_of(groups);
    const double norm = peft::global_norm(peft::gradients(parameters));
    if (!std::isfinite(norm)) return norm;
    for (const torch::Tensor& parameter : parameters) {
      torch::Tensor gradient = parameter.grad();
      if (!gradient.defined()) continue;
      const torch::Tensor limits = unit_norms(parameter).clamp_min_(options_.eps).mul_(options_.clipping);
      // A row of zeros stays as it is.
      const torch::Tensor norms = unit_norms(gradient).clamp_min_(std::numeric_limits<float>::min());
      gradient.mul_((limits / norms).clamp_max_(1));
    }
    return norm;
  }

 private:
  AgcOptions options_;
};

std::unique_ptr<peft::GradientClipping> make(peft::Options& in) {
  AgcOptions o;
  in.get("clipping", o.clipping, "maximum norm of a row's gradient as a ratio of the row's norm")
      .require(o.clipping > 0, "must be positive");
  in.get("eps", o.eps, "minimum norm of a row of weights, so that rows of zeros can change")
      .require(o.eps > 0, "must be positive");
  return std::make_unique<Agc>(o);
}
void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("agc", make); }

}  // namespace

PEFT_PLUGIN("agc", "1.0.0", add)

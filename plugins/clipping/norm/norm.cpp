#include <cmath>
#include <limits>

#include "peft/plugin.h"

namespace {

struct NormOptions {
  double max_norm = 1;
  double norm_type = 2;
};

class Norm final : public peft::GradientClipper {
 public:
  explicit Norm(NormOptions options) : options_(options) {}

  double clip(const std::vector<torch::Tensor>& parameters) override {
    const std::vector<torch::Tensor> gradients = peft::gradients(parameters);
    const double norm = peft::global_norm(gradients);
    if (!std::isfinite(norm) || gradients.empty()) return norm;
    const double bounded = options_.norm_type == 2 ? norm : peft::global_norm(gradients, options_.norm_type);
    if (!std::isfinite(bounded))
      throw peft::DivergedError("clipping norm: the norm of order " + std::to_string(options_.norm_type) +
                                " of the gradients overflows (their 2-norm is " + std::to_string(norm) + ")");
    // In fp32 where the gradients are, as clip_grad_norm_ does it: the same bits.
    const bool wide = gradients.front().scalar_type() == torch::kFloat64 || bounded > std::numeric_limits<float>::max();
    const double factor = wide ? options_.max_norm / (bounded + 1e-6)
                               : static_cast<float>(options_.max_norm) / (static_cast<float>(bounded) + 1e-6F);
    if (factor < 1) at::_foreach_mul_(gradients, factor);
    return norm;
  }

 private:
  NormOptions options_;
};

std::unique_ptr<peft::GradientClipper> make(peft::Options& in) {
  NormOptions o;
  in.get("max_norm", o.max_norm, "longer gradients are shortened to this norm")
      .require(o.max_norm > 0, "must be positive; clipping 'none' turns clipping off");
  in.get("norm_type", o.norm_type, "order of the norm, 2 for the Euclidean")
      .require(o.norm_type > 0, "must be positive");
  return std::make_unique<Norm>(o);
}
void add(peft::Registry& registry) { registry.clippers.add("norm", make); }

}  // namespace

PEFT_PLUGIN("norm", "1.0.0", add)

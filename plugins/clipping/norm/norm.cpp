#include <cmath>

#include "../scale_to_norm.h"

namespace {

using torch::Tensor;

struct NormOptions {
  double max_norm = 1;
  double norm_type = 2;
  std::string per = "all";
};

class Norm final : public peft::GradientClipping {
 public:
  explicit Norm(NormOptions options) : options_(std::move(options)) {}

 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    const std::vector<Tensor> gradients = peft::gradients(peft::parameters_of(groups));
    const double norm = peft::global_norm(gradients);
    if (!std::isfinite(norm)) return norm;
    if (options_.per == "all") bound(gradients);
    if (options_.per == "group")
      for (const peft::ParamGroup& group : groups) bound(peft::gradients(peft::parameters_of({group})));
    if (options_.per == "tensor")
      for (const Tensor& gradient : gradients) bound({gradient});
    return norm;
  }

 private:
  void bound(const std::vector<Tensor>& gradients) const {
    const double norm = peft::global_norm(gradients, options_.norm_type);
    if (!std::isfinite(norm))
      throw peft::DivergedError("clipping norm: the norm of order " + std::to_string(options_.norm_type) +
                                " of the gradients overflows (their 2-norm is " +
                                std::to_string(peft::global_norm(gradients)) + ")");
    scale_to_norm(gradients, norm, options_.max_norm);
  }
  NormOptions options_;
};

std::unique_ptr<peft::GradientClipping> make(peft::Options& in) {
  NormOptions o;
  in.get("max_norm", o.max_norm, "gradients with a larger norm are scaled to this norm")
      .require(o.max_norm > 0, "must be positive; clipping 'none' turns clipping off");
  in.get("norm_type", o.norm_type, "order of the norm; 2 is Euclidean").require(o.norm_type > 0, "must be positive");
  in.get("per", o.per, "what is measured and scaled together: all, each param group, or each tensor")
      .require(o.per == "all" || o.per == "group" || o.per == "tensor", "must be \"all\", \"group\" or \"tensor\"");
  return std::make_unique<Norm>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("norm", make); }

}  // namespace

PEFT_PLUGIN("norm", "1.1.0", add)

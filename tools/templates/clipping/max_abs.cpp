// Scales all gradients by one factor until no element is larger than a bound. Unlike clipping by value this keeps their
// direction.
#include <peft/plugin.h>

#include <cmath>
#include <limits>

namespace {

class MaxAbs final : public peft::GradientClipping {
 public:
  explicit MaxAbs(double bound) : bound_(bound) {}

 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    const std::vector<torch::Tensor> gradients = peft::gradients(peft::parameters_of(groups));
    const double norm = peft::global_norm(gradients);
    const double highest = peft::global_norm(gradients, std::numeric_limits<double>::infinity());
    if (std::isfinite(norm) && highest > bound_) at::_foreach_mul_(gradients, bound_ / highest);
    return norm;
  }

 private:
  double bound_;
};

std::unique_ptr<peft::GradientClipping> make(peft::Options& in) {
  double bound = 0.1;
  in.get("bound", bound, "maximum magnitude of an element").require(bound > 0, "must be positive");
  return std::make_unique<MaxAbs>(bound);
}

void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("max_abs", make); }

}  // namespace

PEFT_PLUGIN("max_abs", "0.1.0", add)

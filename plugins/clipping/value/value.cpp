#include <cmath>

#include "peft/plugin.h"

namespace {

class Value final : public peft::GradientClipping {
 public:
  explicit Value(double clip_value) : clip_value_(clip_value) {}

 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    const std::vector<torch::Tensor> gradients = peft::gradients(peft::parameters_of(groups));
    const double norm = peft::global_norm(gradients);
    // No element is larger than the norm.
    if (!std::isfinite(norm) || norm <= clip_value_) return norm;
    at::_foreach_clamp_min_(gradients, -clip_value_);
    at::_foreach_clamp_max_(gradients, clip_value_);
    return norm;
  }

 private:
  double clip_value_;
};

std::unique_ptr<peft::GradientClipping> make(peft::Options& in) {
  double clip_value = 1;
  in.get("clip_value", clip_value, "elements are clamped to ± this value")
      .require(clip_value > 0, "must be positive; clipping 'none' turns clipping off");
  return std::make_unique<Value>(clip_value);
}
void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("value", make); }

}  // namespace

PEFT_PLUGIN("value", "1.0.0", add)

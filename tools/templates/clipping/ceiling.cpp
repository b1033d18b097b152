// All gradients are scaled alike until no element is beyond a ceiling: unlike clipping by value, their direction stays.
#include <peft/plugin.h>

#include <cmath>
#include <limits>

namespace {

class Ceiling final : public peft::GradientClipping {
 public:
  explicit Ceiling(double most) : most_(most) {}

 protected:
  double do_clip(const std::vector<peft::ParamGroup>& groups) override {
    const std::vector<torch::Tensor> gradients = peft::gradients(peft::parameters_of(groups));
    const double norm = peft::global_norm(gradients);
    const double highest = peft::global_norm(gradients, std::numeric_limits<double>::infinity());
    if (std::isfinite(norm) && highest > most_) at::_foreach_mul_(gradients, most_ / highest);
    return norm;
  }

 private:
  double most_;
};

std::unique_ptr<peft::GradientClipping> make(peft::Options& in) {
  double most = 0.1;
  in.get("most", most, "no element of a gradient is beyond ± this").require(most > 0, "must be positive");
  return std::make_unique<Ceiling>(most);
}

void add(peft::Registry& registry) { registry.add<peft::GradientClipping>("ceiling", make); }

}  // namespace

PEFT_PLUGIN("ceiling", "0.1.0", add)

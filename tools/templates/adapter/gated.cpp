// An example method: the output of each target module is scaled, y · exp(strength · s), with a trainable vector s.
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

struct GatedOptions {
  double strength = 1;
  peft::Targets targets{.target_modules = peft::StringList{"v_proj", "down_proj"}};
};

class GatedLayer final : public peft::AdapterLayer {
 public:
  GatedLayer(int64_t features, double strength, const at::TensorOptions& tensor_options) : strength_(strength) {
    s_ = register_parameter("gate", torch::zeros({features}, tensor_options));
  }
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override {
    const torch::Tensor y = next(x);
    return y * factor().to(y.scalar_type());
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    const torch::Tensor f = factor().to(weights.weight.scalar_type());
    weights.weight.mul_(f.unsqueeze(1));
    if (weights.bias.defined()) weights.bias.mul_(f);
    return true;
  }

 private:
  torch::Tensor factor() const { return (s_ * strength_).exp(); }
  torch::Tensor s_;  // [out]
  double strength_;
};

class Gated final : public peft::TargetedAdapter {
 public:
  explicit Gated(GatedOptions options)
      : peft::TargetedAdapter("GATED", options.targets), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<GatedLayer>(site.out_features(), options_.strength, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override { config["strength"] = options_.strength; }

 private:
  GatedOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  GatedOptions o;
  in.get("strength", o.strength, "factor of the gate in the exponent").require(o.strength > 0, "must be positive");
  peft::read_targets(in, o.targets);
  return std::make_unique<Gated>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("gated", make); }

}  // namespace

PEFT_PLUGIN("gated", "0.1.0", add)

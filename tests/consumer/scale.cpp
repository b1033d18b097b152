// A method of somebody else's: y = (x·Wᵀ + b) · s, with a trainable vector s of ones around every Linear it is told.
#include <peft/model/decoder.h>
#include <peft/plugin.h>
#include <peft/targets.h>
#include <torch/nn/module.h>

#include <nlohmann/json.hpp>

namespace {

class ScaleLayer final : public peft::Layer {
 public:
  ScaleLayer(int64_t features, const torch::TensorOptions& options) {
    scale_ = register_parameter("scale", torch::ones({features}, options));
  }
  torch::Tensor forward(const torch::Tensor& x, const peft::Next& next) override {
    const torch::Tensor y = next(x);
    return y * scale_.to(y.dtype());
  }
  bool fold(peft::Affine& affine) const override {
    const torch::Tensor scale = scale_.detach().to(affine.weight.dtype());
    affine.weight.mul_(scale.unsqueeze(1));
    if (affine.bias.defined()) affine.bias.mul_(scale);
    return true;
  }

 private:
  torch::Tensor scale_;
};

class Scale final : public peft::Adapter {
 public:
  explicit Scale(peft::Targets targets) : targets_(std::move(targets)) {}
  void attach(peft::Model& model, torch::Dtype dtype) override {
    const auto options = torch::TensorOptions().dtype(dtype).device(model.device());
    for (peft::Site* site : peft::select_sites(model, targets_)) {
      auto* linear = dynamic_cast<peft::Linear*>(site);
      if (linear == nullptr) throw peft::ConfigError("scale: '" + site->path() + "' is no linear layer");
      place(*linear, "scale", std::make_shared<ScaleLayer>(linear->out_features(), options));
    }
  }
  nlohmann::ordered_json hf_config(const peft::Model&) const override { return {{"peft_type", "SCALE"}}; }

 private:
  peft::Targets targets_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  peft::Targets targets;
  targets.target_modules = peft::StringList{"q_proj", "v_proj"};
  in.get("target_modules", targets.target_modules, "linear layers to scale");
  return std::make_unique<Scale>(std::move(targets));
}

void add(peft::Registry& registry) { registry.adapters.add("scale", make); }

}  // namespace

PEFT_PLUGIN("scale", "0.1.0", add)

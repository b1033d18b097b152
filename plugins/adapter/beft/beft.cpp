// BEFT: Bias-Efficient Fine-Tuning (arXiv 2509.15974): a trainable bias is added to the output of each target module.
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options of HF PEFT's BeftConfig, with its defaults for Llama.
struct BeftOptions {
  bool init_weights = true;
  peft::Targets targets{
      .target_modules = peft::StringList{"v_proj"}, .has_exclude_modules = false, .has_layer_filter = false};
};

BeftOptions read(peft::Options& in) {
  BeftOptions o;
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: zeros; false: normal, for tests");
  return o;
}

class BeftLayer final : public peft::AdapterLayer {
 public:
  BeftLayer(const peft::Linear& site, bool zeros, const at::TensorOptions& tensor_options) {
    const std::vector<int64_t> shape{1, site.out_features()};
    bias_ = register_parameter(
        "beft_bias", zeros ? peft::init::zeros(shape, tensor_options) : peft::init::normal(shape, 1, tensor_options));
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const Tensor y = next(x);
    return y + bias_.flatten().to(y.scalar_type());
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    const Tensor bias = bias_.flatten().to(weights.weight.scalar_type());
    weights.bias = weights.bias.defined() ? weights.bias + bias : bias.clone();
    return true;
  }

 private:
  Tensor bias_;  // [1, out]
};

class Beft final : public peft::TargetedAdapter {
 public:
  explicit Beft(BeftOptions options)
      : TargetedAdapter("BEFT", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<BeftLayer>(site, options_.init_weights, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override { config["init_weights"] = options_.init_weights; }

 private:
  BeftOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Beft>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("beft", make); }

}  // namespace

PEFT_PLUGIN("beft", "1.0.0", add)

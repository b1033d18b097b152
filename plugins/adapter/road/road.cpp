// RoAd: 3-in-1: 2D Rotary Adaptation (Liao & Monz 2024, arXiv 2409.00119): pairs of outputs are rotated and
// scaled.
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's RoadConfig.
struct RoadOptions {
  std::string variant = "road_1";
  int64_t group_size = 64;
  bool init_weights = true;
  peft::Targets targets{
      .target_modules = peft::StringList{"q_proj", "v_proj"}, .has_exclude_modules = false, .has_layer_filter = false};
};

RoadOptions read(peft::Options& in) {
  RoadOptions o;
  in.get("variant", o.variant, "angles and lengths per output: \"road_1\", half; \"road_2\", one; \"road_4\", two")
      .require(o.variant == "road_1" || o.variant == "road_2" || o.variant == "road_4",
               "must be \"road_1\", \"road_2\" or \"road_4\"");
  in.get("group_size", o.group_size, "group of outputs whose halves are paired; must divide the number of outputs")
      .require(o.group_size > 0 && o.group_size % 2 == 0, "must be positive and even");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: angle 0, length 1; false: random, for tests");
  return o;
}

class RoadLayer final : public peft::AdapterLayer {
 public:
  RoadLayer(const peft::Linear& site, const RoadOptions& o, const at::TensorOptions& tensor_options)
      : variant_(o.variant), group_(o.group_size) {
    const int64_t out = site.out_features(), size = variant_ == "road_1"   ? out / 2
                                                    : variant_ == "road_2" ? out
                                                                           : 2 * out;
    theta_ = register_parameter("road_theta", o.init_weights ? peft::init::zeros({size}, tensor_options)
                                                             : peft::init::normal({size}, 0.5, tensor_options));
    alpha_ = register_parameter("road_alpha", o.init_weights ? torch::ones({size}, tensor_options)
                                                             : peft::init::normal({size}, 0.5, tensor_options) + 1);
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override { return rotated(next(x)); }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    weights.weight = rotated(weights.weight.t()).t().contiguous();
    if (weights.bias.defined()) weights.bias = rotated(weights.bias);
    return true;
  }

 private:
  /// y [..., out], each group as halves (a, b) → first·(a, b) + second·(−b, a).
  Tensor rotated(const Tensor& y) const {
    const auto [first, second] = columns(y.scalar_type());
    const std::vector<Tensor> halves = y.unflatten(-1, {-1, 2, group_ / 2}).unbind(-2);
    const Tensor rotated = at::stack({-halves[1], halves[0]}, -2).flatten(-3);
    return y * first + rotated * second;
  }
  /// α·cos θ and α·sin θ for each output.
  std::pair<Tensor, Tensor> columns(torch::Dtype dtype) const {
    Tensor theta = theta_.to(dtype), alpha = alpha_.to(dtype);
    if (variant_ == "road_4") {
      theta = theta.view({-1, 2, group_});
      alpha = alpha.view({-1, 2, group_});
      return {(alpha.select(1, 0) * theta.select(1, 0).cos()).flatten(),
              (alpha.select(1, 1) * theta.select(1, 1).sin()).flatten()};
    }
    if (variant_ == "road_1") {
      const auto doubled = [&](const Tensor& v) { return v.view({-1, group_ / 2}).repeat_interleave(2, 0).flatten(); };
      theta = doubled(theta);
      alpha = doubled(alpha);
    }
    return {alpha * theta.cos(), alpha * theta.sin()};
  }
  std::string variant_;
  int64_t group_;
  Tensor theta_, alpha_;
};

class Road final : public peft::TargetedAdapter {
 public:
  explicit Road(RoadOptions options)
      : TargetedAdapter("ROAD", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    if (site.out_features() % options_.group_size != 0)
      throw peft::ConfigError("[adapter] group_size: " + std::to_string(options_.group_size) + " does not divide the " +
                              std::to_string(site.out_features()) + " outputs of '" + peft::printable(site.path()) +
                              "'");
    return std::make_shared<RoadLayer>(site, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["group_size"] = options_.group_size;
    config["init_weights"] = options_.init_weights;
    config["variant"] = options_.variant;
  }

 private:
  RoadOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Road>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("road", make); }

}  // namespace

PEFT_PLUGIN("road", "1.0.0", add)

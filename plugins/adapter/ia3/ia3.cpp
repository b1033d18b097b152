// (IA)³: Infused Adapter by Inhibiting and Amplifying Inner Activations (Liu et al. 2022, arXiv 2205.05638).
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

namespace {

using torch::Tensor;

/// The options of HF PEFT's IA3Config, with its defaults for Llama.
struct Ia3Options {
  peft::Targets targets{.target_modules = peft::StringList{"k_proj", "v_proj", "down_proj"}, .has_layer_filter = false};
  peft::StringOrList feedforward_modules = peft::StringList{"down_proj"};
  bool init_ia3_weights = true;
};

bool are_feedforward_modules_targets(const Ia3Options& o) {
  const auto* targets = std::get_if<peft::StringList>(&o.targets.target_modules);
  const auto* feedforward = std::get_if<peft::StringList>(&o.feedforward_modules);
  return targets == nullptr || feedforward == nullptr ||
         std::all_of(feedforward->begin(), feedforward->end(), [&](const std::string& name) {
           return std::find(targets->begin(), targets->end(), name) != targets->end();
         });
}

Ia3Options read(peft::Options& in) {
  Ia3Options o;
  const bool default_targets = !in.has("target_modules");
  peft::read_targets(in, o.targets);
  if (!default_targets) o.feedforward_modules = peft::StringList{};
  in.get("feedforward_modules", o.feedforward_modules, "target modules whose input is scaled instead of their output")
      .require(are_feedforward_modules_targets(o), "must be among target_modules");
  in.get("init_ia3_weights", o.init_ia3_weights, "true: ones; false: normal, for tests");
  return o;
}

/// Multiplies the output, or the input of a feed-forward module, by a trainable vector.
class Ia3Layer final : public peft::AdapterLayer {
 public:
  Ia3Layer(const peft::Linear& site, bool scales_input, bool ones, const at::TensorOptions& tensor_options)
      : scales_input_(scales_input) {
    const std::vector<int64_t> shape =
        scales_input ? std::vector<int64_t>{1, site.in_features()} : std::vector<int64_t>{site.out_features(), 1};
    l_ = register_parameter("ia3_l",
                            ones ? torch::ones(shape, tensor_options) : peft::init::normal(shape, 1, tensor_options));
  }
  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const Tensor l = l_.flatten().to(x.scalar_type());
    return scales_input_ ? next(x * l) : next(x) * l;
  }
  bool merge_into(peft::WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    weights.weight *= l_.to(weights.weight.scalar_type());
    if (!scales_input_ && weights.bias.defined()) weights.bias *= l_.flatten().to(weights.bias.scalar_type());
    return true;
  }

 private:
  bool scales_input_;
  Tensor l_;  // [out, 1] or [1, in]
};

class Ia3 final : public peft::TargetedAdapter {
 public:
  explicit Ia3(Ia3Options options)
      : TargetedAdapter("IA3", options.targets, options.init_ia3_weights), options_(std::move(options)) {}

 protected:
  void prepare(const peft::Model& model, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    sites_ = sites;
    if (options_.feedforward_modules == peft::StringOrList(peft::StringList{})) return;
    peft::Targets feedforward = options_.targets;
    feedforward.target_modules = options_.feedforward_modules;
    const auto selected = peft::select_sites(model, feedforward);
    feedforward_.insert(selected.begin(), selected.end());
  }
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<Ia3Layer>(site, feedforward_.contains(sites_[index]), options_.init_ia3_weights,
                                      tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["fan_in_fan_out"] = false;
    config["init_ia3_weights"] = options_.init_ia3_weights;
    if (const auto* names = std::get_if<peft::StringList>(&options_.feedforward_modules))
      config["feedforward_modules"] = std::set<std::string>(names->begin(), names->end());
    else
      config["feedforward_modules"] = std::get<std::string>(options_.feedforward_modules);
  }

 private:
  Ia3Options options_;
  std::vector<peft::Site*> sites_;
  std::set<peft::Site*> feedforward_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Ia3>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("ia3", make); }

}  // namespace

PEFT_PLUGIN("ia3", "1.0.0", add)

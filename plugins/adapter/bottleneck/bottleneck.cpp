// Bottleneck adapters: a small network after the attention and the MLP of each layer, or parallel to the MLP (Houlsby
// et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2021, arXiv 2005.00247; He et al. 2022, arXiv 2110.04366).
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

Tensor identity(const Tensor& x) { return x; }
Tensor gelu(const Tensor& x) { return at::gelu(x); }
Tensor relu(const Tensor& x) { return at::relu(x); }
Tensor silu(const Tensor& x) { return at::silu(x); }
Tensor tanh(const Tensor& x) { return at::tanh(x); }

using Activation = Tensor (*)(const Tensor&);
const std::map<std::string, Activation> activations = {
    {"gelu", gelu}, {"linear", identity}, {"relu", relu}, {"swish", silu}, {"tanh", tanh}};

/// Named as in the `adapters` library.
struct BottleneckOptions {
  std::string variant = "pfeiffer";
  double reduction_factor = 16;
  std::optional<int64_t> bottleneck_size;
  std::string non_linearity = "relu";
  double scaling = 1;
  double dropout = 0;
  bool init_weights = true;
  std::optional<peft::IntList> layers_to_transform;

  bool parallel() const { return variant == "parallel"; }
  int64_t width(int64_t hidden) const {
    return bottleneck_size.value_or(std::max<int64_t>(1, static_cast<int64_t>(double(hidden) / reduction_factor)));
  }
};

BottleneckOptions read(peft::Options& in) {
  BottleneckOptions o;
  in.get("variant", o.variant,
         "\"houlsby\": after attention and MLP; \"pfeiffer\": after the MLP; \"parallel\": parallel to the MLP")
      .require(o.variant == "houlsby" || o.variant == "pfeiffer" || o.variant == "parallel",
               "must be \"houlsby\", \"pfeiffer\" or \"parallel\"");
  in.get("reduction_factor", o.reduction_factor,
         "the bottleneck has hidden size / reduction_factor units, rounded down")
      .require(o.reduction_factor >= 0.01, "must be at least 0.01");
  in.get("bottleneck_size", o.bottleneck_size, "units of the bottleneck, instead of reduction_factor")
      .in_size_limit(o.bottleneck_size.value_or(1));
  in.get("non_linearity", o.non_linearity, "activation: \"relu\", \"gelu\", \"swish\", \"tanh\" or \"linear\"")
      .require(activations.contains(o.non_linearity), R"(must be "relu", "gelu", "swish", "tanh" or "linear")");
  in.get("scaling", o.scaling, "factor of the adapter's output");
  in.get("dropout", o.dropout, "dropout probability of the adapter's input in training")
      .require(o.dropout >= 0 && o.dropout < 1, "must be at least 0 and below 1");
  in.get(
      "init_weights", o.init_weights,
      "true: adapter_up zero, adapter_down as nn.Linear; false: both normal with standard deviation 0.02, as in BERT");
  in.get("layers_to_transform", o.layers_to_transform, "indices of the layers to adapt; default: all");
  return o;
}

/// h + scaling · up(act(down(h))) for h = next(x); parallel: next(x) + scaling · up(act(down(x))).
class BottleneckLayer final : public peft::AdapterLayer {
 public:
  BottleneckLayer(int64_t hidden, const BottleneckOptions& o, const at::TensorOptions& tensor_options)
      : act_(activations.at(o.non_linearity)), scaling_(o.scaling), dropout_(o.dropout), parallel_(o.parallel()) {
    const int64_t width = o.width(hidden);
    const auto child = [&](const char* name, const Tensor& weight) {
      const auto holder = register_module(name, std::make_shared<torch::nn::Module>());
      return Map{holder->register_parameter("weight", weight),
                 holder->register_parameter("bias", peft::init::zeros({weight.size(0)}, tensor_options))};
    };
    if (o.init_weights) {
      down_ = child("adapter_down", peft::init::kaiming_uniform({width, hidden}, tensor_options));
      up_ = child("adapter_up", peft::init::zeros({hidden, width}, tensor_options));
    } else {
      down_ = child("adapter_down", peft::init::normal({width, hidden}, 0.02, tensor_options));
      up_ = child("adapter_up", peft::init::normal({hidden, width}, 0.02, tensor_options));
    }
  }

  Tensor forward(const Tensor& x, const peft::Next& next) override {
    const Tensor y = next(x);
    Tensor in = parallel_ ? x : y;
    if (dropout_ > 0 && is_training()) in = at::dropout(in, dropout_, /*train=*/true);
    return y.add(up_(act_(down_(in))), scaling_);
  }

 private:
  struct Map {
    Tensor weight, bias;
    Tensor operator()(const Tensor& x) const {
      return at::linear(x, weight.to(x.scalar_type()), bias.to(x.scalar_type()));
    }
  };
  Activation act_;
  double scaling_, dropout_;
  bool parallel_;
  Map down_, up_;  // [width, hidden], [hidden, width]
};

class Bottleneck final : public peft::Adapter, public peft::HfFormat {
 public:
  explicit Bottleneck(BottleneckOptions options)
      : Adapter(options.init_weights), HfFormat(this), options_(std::move(options)) {}
  const peft::HfFormat& hf_format() const noexcept override { return *this; }

 protected:
  void do_attach(peft::Model& model, torch::Dtype dtype) override {
    const peft::MemoryScope scope(peft::MemoryComponent::adapter);
    const at::TensorOptions tensor_options = at::TensorOptions().dtype(dtype).device(model.device());
    const std::vector<peft::Attention*> attentions = model.attentions();
    const std::vector<peft::Site*> mlps = model.mlps();
    for (const std::size_t layer : chosen_layers(mlps.size())) {
      if (options_.variant == "houlsby") adapt(*attentions[layer], model, tensor_options);
      adapt(*mlps[layer], model, tensor_options);
    }
  }

  nlohmann::ordered_json do_config(const peft::Model&) const override {
    nlohmann::ordered_json config = peft::common_config("BOTTLENECK");
    config["bottleneck_size"] = nullptr;
    if (options_.bottleneck_size) config["bottleneck_size"] = *options_.bottleneck_size;
    config["dropout"] = options_.dropout;
    config["init_weights"] = options_.init_weights;
    config["layers_to_transform"] = nullptr;
    if (options_.layers_to_transform) config["layers_to_transform"] = *options_.layers_to_transform;
    config["non_linearity"] = options_.non_linearity;
    config["reduction_factor"] = peft::config_number(options_.reduction_factor);
    config["scaling"] = options_.scaling;
    config["variant"] = options_.variant;
    return peft::sorted_config(config);
  }

 private:
  std::vector<std::size_t> chosen_layers(std::size_t count) const {
    std::vector<std::size_t> chosen;
    const auto& wanted = options_.layers_to_transform;
    for (std::size_t layer = 0; layer < count; ++layer)
      if (!wanted || std::ranges::find(*wanted, static_cast<int64_t>(layer)) != wanted->end()) chosen.push_back(layer);
    if (wanted)
      for (const int64_t layer : *wanted)
        if (layer < 0 || layer >= static_cast<int64_t>(count))
          throw peft::ConfigError("[adapter] layers_to_transform: there is no layer " + std::to_string(layer) +
                                  "; the model has " + std::to_string(count) + " layers");
    if (chosen.empty()) throw peft::ConfigError("[adapter] layers_to_transform: must list at least one layer");
    return chosen;
  }
  void adapt(peft::Site& site, const peft::Model& model, const at::TensorOptions& tensor_options) {
    add_layer(site, "bottleneck",
              std::make_shared<BottleneckLayer>(model.config().hidden_size, options_, tensor_options));
  }
  BottleneckOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Bottleneck>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("bottleneck", make); }

}  // namespace

PEFT_PLUGIN("bottleneck", "1.0.0", add)

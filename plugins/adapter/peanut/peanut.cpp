// PEANuT: Parameter-Efficient Adaptation with Weight-aware Neural Tweakers (Zhong et al. 2024, arXiv 2410.01870): ΔW is
// what a small network makes of W.
#include <peft/delta_layer.h>
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>
#include <torch/torch.h>

#include <map>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;
using Activation = Tensor (*)(const Tensor&);

/// Those of transformers' ACT2FN that are there, by their names there.
const std::map<std::string, Activation> activations = {{"gelu", [](const Tensor& x) { return at::gelu(x); }},
                                                       {"relu", [](const Tensor& x) { return x.relu(); }},
                                                       {"sigmoid", [](const Tensor& x) { return x.sigmoid(); }},
                                                       {"silu", [](const Tensor& x) { return at::silu(x); }},
                                                       {"tanh", [](const Tensor& x) { return x.tanh(); }}};

/// HF PEFT's PeanutConfig: its names, its defaults.
struct PeanutOptions {
  int64_t r = 32;
  int64_t depth = 0;
  std::string act_fn = "relu";
  double scaling = 1;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

PeanutOptions read(peft::Options& in) {
  PeanutOptions o;
  in.get("r", o.r, "width of the network").require(o.r > 0, "must be positive");
  in.get("depth", o.depth, "pairs of inner layers, one on the way in and one on the way out")
      .require(o.depth >= 0 && o.depth <= 64, "must be between 0 and 64");
  in.get("act_fn", o.act_fn, "\"gelu\", \"relu\", \"sigmoid\", \"silu\" or \"tanh\"")
      .require(activations.contains(o.act_fn), "must be \"gelu\", \"relu\", \"sigmoid\", \"silu\" or \"tanh\"");
  in.get("scaling", o.scaling, "the update is scaled by this");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: the last layer zero, the others uniform; false: all random, for tests");
  return o;
}

class PeanutLayer final : public peft::DeltaLayer {
 public:
  PeanutLayer(const peft::Linear& site, const PeanutOptions& o, const at::TensorOptions& form)
      : act_(activations.at(o.act_fn)), scaling_(o.scaling), weight_(site.frozen().weight) {
    const int64_t out = site.out_features();
    const auto drawn = [&](at::IntArrayRef shape) { return peft::init::kaiming_uniform(shape, form); };
    A_ = child("peanut_A", drawn({o.r, out}));
    B_ = child("peanut_B", o.init_weights ? peft::init::zeros({out, o.r}, form) : drawn({out, o.r}));
    for (const auto& [name, stack] :
         {std::pair("peanut_encoders", &encoders_), std::pair("peanut_decoders", &decoders_)}) {
      const auto list = register_module(name, std::make_shared<torch::nn::Module>());
      for (int64_t i = 0; i < o.depth; ++i) {
        const auto layer = list->register_module(std::to_string(i), std::make_shared<torch::nn::Module>());
        stack->push_back(layer->register_parameter("weight", drawn({o.r, o.r})));
      }
    }
  }

 protected:
  /// Each layer on the way out is added to the one of its depth on the way in.
  Tensor delta(torch::Dtype dtype) const override {
    Tensor h = act_(at::linear(weight_.t().to(A_.scalar_type()), A_));  // [in, r]
    std::vector<Tensor> inward;
    for (const Tensor& encoder : encoders_) {
      inward.push_back(h);
      h = act_(at::linear(h, encoder));
    }
    for (const Tensor& decoder : decoders_) {
      h = act_(at::linear(h, decoder)) + inward.back();
      inward.pop_back();
    }
    return (at::linear(h, B_) * scaling_).t().to(dtype);
  }

 private:
  Tensor child(const std::string& name, const Tensor& weight) {
    return register_module(name, std::make_shared<torch::nn::Module>())->register_parameter("weight", weight);
  }
  Activation act_;
  double scaling_;
  Tensor weight_, A_, B_;                    // [out, in]; [r, out], [out, r]
  std::vector<Tensor> encoders_, decoders_;  // [r, r] each
};

class Peanut final : public peft::TargetedAdapter {
 public:
  explicit Peanut(PeanutOptions options) : TargetedAdapter("PEANUT", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights; }

 protected:
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t,
                                          const at::TensorOptions& form) override {
    return std::make_shared<PeanutLayer>(site, options_, form);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["act_fn"] = options_.act_fn;
    config["depth"] = options_.depth;
    config["init_weights"] = options_.init_weights;
    config["r"] = options_.r;
    config["scaling"] = options_.scaling;
  }

 private:
  PeanutOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Peanut>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("peanut", make); }

}  // namespace

PEFT_PLUGIN("peanut", "1.0.0", add)

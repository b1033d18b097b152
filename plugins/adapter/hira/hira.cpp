// HiRA: Parameter-Efficient Hadamard High-Rank Adaptation (Huang et al. 2025, ICLR): ΔW = W ⊙ (B·A).
#include <peft/adapters/delta_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's HiraConfig.
struct HiraOptions {
  int64_t r = 32;
  double hira_dropout = 0;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

HiraOptions read(peft::Options& in) {
  HiraOptions o;
  in.get("r", o.r, "rank of the factor of the weight").in_size_limit(o.r);
  in.get("hira_dropout", o.hira_dropout, "dropout probability of the update's input in training")
      .require(o.hira_dropout >= 0 && o.hira_dropout < 1, "must be at least 0 and below 1");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: A uniform, B zero; false: both random, for tests");
  return o;
}

class HiraLayer final : public peft::DeltaLayer {
 public:
  HiraLayer(const peft::Linear& site, const HiraOptions& o, const at::TensorOptions& tensor_options)
      : DeltaLayer(o.hira_dropout), weight_(site.dense()) {
    const int64_t in = site.in_features(), out = site.out_features(), r = o.r;
    A_ = register_parameter("hira_A", peft::init::kaiming_uniform({r, in}, tensor_options));
    B_ = register_parameter("hira_B", o.init_weights ? peft::init::zeros({out, r}, tensor_options)
                                                     : peft::init::kaiming_uniform({out, r}, tensor_options));
  }

  bool innermost() const override { return true; }

 protected:
  Tensor delta(torch::Dtype dtype) const override { return weight_.to(dtype) * at::mm(B_.to(dtype), A_.to(dtype)); }

 private:
  Tensor weight_, A_, B_;  // [out, in], [r, in], [out, r]
};

class Hira final : public peft::TargetedAdapter {
 public:
  explicit Hira(HiraOptions options)
      : TargetedAdapter("HIRA", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<HiraLayer>(site, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["fan_in_fan_out"] = false;
    config["hira_dropout"] = options_.hira_dropout;
    config["init_weights"] = options_.init_weights;
    config["r"] = options_.r;
    config["rank_pattern"] = nlohmann::ordered_json::object();  // PEFT 0.21 reads it, but does not apply it
  }

 private:
  HiraOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Hira>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("hira", make); }

}  // namespace

PEFT_PLUGIN("hira", "1.0.0", add)

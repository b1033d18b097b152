// A DeltaLayer: ΔW = W ⊙ (B·A), the frozen weight times a low-rank matrix, element by element.
#include <peft/adapters/delta_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

struct HadamardOptions {
  int64_t r = 8;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

class HadamardLayer final : public peft::DeltaLayer {
 public:
  HadamardLayer(const peft::Linear& site, int64_t r, const at::TensorOptions& tensor_options)
      : weight_(site.dense()) {  // [out, in] in the precision's dtype, which may be bf16; never written to
    A_ = register_parameter("A", peft::init::kaiming_uniform({r, site.in_features()}, tensor_options));
    B_ = register_parameter("B", peft::init::zeros({site.out_features(), r}, tensor_options));
  }
  /// It computes with the frozen weight, so no other adapter may be between the two.
  bool innermost() const override { return true; }

 protected:
  torch::Tensor delta(torch::Dtype dtype) const override {
    return weight_.to(dtype) * at::mm(B_.to(dtype), A_.to(dtype));
  }

 private:
  torch::Tensor weight_, A_, B_;
};

class Hadamard final : public peft::TargetedAdapter {
 public:
  explicit Hadamard(HadamardOptions options)
      : TargetedAdapter("HADAMARD", options.targets), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<HadamardLayer>(site, options_.r, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override { config["r"] = options_.r; }

 private:
  HadamardOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) {
  HadamardOptions o;
  in.get("r", o.r, "rank of the factor of the weight").in_size_limit(o.r);
  peft::read_targets(in, o.targets);
  return std::make_unique<Hadamard>(std::move(o));
}

void add(peft::Registry& registry) { registry.add<peft::Adapter>("hadamard", make); }

}  // namespace

PEFT_PLUGIN("hadamard", "0.1.0", add)

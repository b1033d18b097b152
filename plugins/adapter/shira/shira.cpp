// SHiRA: Sparse High Rank Adapters (Bhardwaj et al. 2024, arXiv 2406.13175): a few entries of the weight, at
// random positions, are trainable.
#include <ATen/CPUGeneratorImpl.h>
#include <peft/adapters/delta_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's ShiraConfig.
struct ShiraOptions {
  int64_t r = 32;
  std::optional<int64_t> random_seed;
  bool init_weights = true;
  peft::Targets targets{
      .target_modules = peft::StringList{"q_proj", "v_proj"}, .has_exclude_modules = false, .has_layer_filter = false};
};

ShiraOptions read(peft::Options& in) {
  ShiraOptions o;
  in.get("r", o.r, "the number of trainable entries is that of a LoRA of this rank").in_size_limit(o.r);
  std::string mask = "random";
  in.get("mask_type", mask, "how entries are selected: \"random\"").require(mask == "random", "must be \"random\"");
  in.get("random_seed", o.random_seed, "seed of the entries' positions; default: the run's random state")
      .require(!o.random_seed || *o.random_seed >= 0, "must not be negative");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: zeros; false: normal, for tests");
  return o;
}

class ShiraLayer final : public peft::DeltaLayer {
 public:
  ShiraLayer(const peft::Linear& site, const ShiraOptions& o, const at::TensorOptions& tensor_options)
      : out_(site.out_features()), in_(site.in_features()) {
    const int64_t count = o.r * (in_ + out_);
    const Tensor order = o.random_seed ? at::randperm(out_ * in_, seeded(*o.random_seed), torch::kLong)
                                       : at::randperm(out_ * in_, torch::kLong);
    const Tensor offsets = std::get<0>(order.slice(0, 0, count).sort());
    weight_ = register_parameter("shira_weight", o.init_weights ? peft::init::zeros({count}, tensor_options)
                                                                : peft::init::normal({count}, 1, tensor_options));
    indices_ = register_buffer(
        "shira_indices",
        at::stack({at::floor_divide(offsets, in_), offsets.remainder(in_)}).to(tensor_options.device(), torch::kInt));
  }

 protected:
  Tensor delta(torch::Dtype dtype) const override {
    const Tensor positions = indices_.to(torch::kLong);
    return torch::zeros({out_, in_}, weight_.options().dtype(dtype))
        .index_put({positions[0], positions[1]}, weight_.to(dtype));
  }

 private:
  static at::Generator seeded(int64_t seed) { return at::detail::createCPUGenerator(static_cast<uint64_t>(seed)); }
  int64_t out_, in_;
  Tensor weight_, indices_;  // [n]; [2, n], rows and columns
};

class Shira final : public peft::TargetedAdapter {
 public:
  explicit Shira(ShiraOptions options)
      : TargetedAdapter("SHIRA", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    const int64_t in = site.in_features(), out = site.out_features();
    if (options_.r * (in + out) > in * out)
      throw peft::ConfigError("[adapter] r: " + std::to_string(options_.r) + " makes more entries than the " +
                              std::to_string(in * out) + " of '" + peft::printable(site.path()) + "'");
    return std::make_shared<ShiraLayer>(site, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["fan_in_fan_out"] = false;
    config["init_weights"] = options_.init_weights;
    config["mask_type"] = "random";
    config["r"] = options_.r;
    config["random_seed"] = nullptr;
    if (options_.random_seed) config["random_seed"] = *options_.random_seed;
  }

 private:
  ShiraOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Shira>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("shira", make); }

}  // namespace

PEFT_PLUGIN("shira", "1.0.0", add)

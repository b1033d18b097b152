// MiSS: Matrix Shard Sharing (Kang & Yin 2024, arXiv 2409.15371): one block D is shared by all shards of the input.
#include <peft/adapters/delta_layer.h>
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's MissConfig.
struct MissOptions {
  int64_t r = 64, mini_r = 1;
  double miss_dropout = 0;
  peft::BoolOrString init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
  bool is(const char* name) const { return init_weights == peft::BoolOrString(std::string(name)); }
};

MissOptions read(peft::Options& in) {
  MissOptions o;
  in.get("r", o.r, "size of the shards of the input, and rank of the update").in_size_limit(o.r);
  in.get("mini_r", o.mini_r, "trainable columns of the block, with init_weights = \"mini\"").in_size_limit(o.mini_r);
  in.get("miss_dropout", o.miss_dropout, "dropout probability of the update's input in training")
      .require(o.miss_dropout >= 0 && o.miss_dropout < 1, "must be at least 0 and below 1");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights,
         "true: zeros; \"mini\": a repeated block of mini_r columns; \"bat\": blocks that multiply the weight; false: "
         "random, for tests")
      .require(std::holds_alternative<bool>(o.init_weights) || o.is("mini") || o.is("bat"),
               "must be true, false, \"mini\" or \"bat\"");
  if (o.is("bat") && o.miss_dropout > 0) in.error("miss_dropout", "has no effect with init_weights = \"bat\"");
  return o;
}

[[noreturn]] void throw_shape_error(const peft::Linear& site, const std::string& reason) {
  throw peft::ConfigError("[adapter] r, mini_r: '" + peft::printable(site.path()) + "' has " +
                          std::to_string(site.in_features()) + " inputs and " + std::to_string(site.out_features()) +
                          " outputs: " + reason);
}

/// Δy = (sum of x's shards of size r) · D, as B·A where A repeats an identity for each shard.
class MissLayer final : public peft::FactoredLayer {
 public:
  MissLayer(const peft::Linear& site, const MissOptions& o, const at::TensorOptions& tensor_options)
      : FactoredLayer(o.miss_dropout), out_(site.out_features()) {
    const int64_t in = site.in_features();
    if (o.r > in) throw_shape_error(site, "r is more than the inputs");
    if (o.is("mini") && out_ % o.mini_r != 0) throw_shape_error(site, "mini_r does not divide the outputs");
    const std::vector<int64_t> shape{o.r, o.is("mini") ? o.mini_r : out_};
    const bool random = o.init_weights == peft::BoolOrString(false);
    block_ = register_parameter("miss_block", random ? peft::init::kaiming_uniform(shape, tensor_options)
                                                     : peft::init::zeros(shape, tensor_options));
    shards_ = torch::eye(o.r, tensor_options).repeat({1, (in + o.r - 1) / o.r}).slice(1, 0, in).contiguous();
  }

 protected:
  peft::LowRank factors() const override {
    return {shards_, block_.repeat({1, out_ / block_.size(1)}).t().contiguous(), 1};
  }

 private:
  int64_t out_;
  Tensor block_, shards_;  // [r, out] or [r, mini_r]; [r, in]
};

/// "bat": each r × r block W_k becomes W_k + W_k·M + M.
class BatLayer final : public peft::DeltaLayer {
 public:
  BatLayer(const peft::Linear& site, int64_t r, const at::TensorOptions& tensor_options) : weight_(site.dense()) {
    if (site.in_features() % r != 0 || site.out_features() % r != 0) throw_shape_error(site, "r must divide both");
    block_ = register_parameter("miss_block", peft::init::zeros({site.out_features() / r, r, r}, tensor_options));
  }
  bool innermost() const override { return true; }

 protected:
  Tensor delta(torch::Dtype dtype) const override {
    const int64_t r = block_.size(1), out = weight_.size(0), in = weight_.size(1);
    const Tensor M = block_.to(dtype), W = weight_.to(dtype).view({out / r, r, in / r, r}).permute({2, 0, 1, 3});
    return (at::matmul(W, M) + M).permute({1, 2, 0, 3}).reshape({out, in});
  }

 private:
  Tensor weight_, block_;  // [out, in], [out/r, r, r]
};

class Miss final : public peft::TargetedAdapter {
 public:
  explicit Miss(MissOptions options)
      : TargetedAdapter("MISS", options.targets, options.init_weights != peft::BoolOrString(false)),
        options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    if (options_.is("bat")) return std::make_shared<BatLayer>(site, options_.r, tensor_options);
    return std::make_shared<MissLayer>(site, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["init_weights"] = peft::config_value(options_.init_weights);
    config["mini_r"] = options_.mini_r;
    config["miss_dropout"] = options_.miss_dropout;
    config["r"] = options_.r;
  }

 private:
  MissOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Miss>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("miss", make); }

}  // namespace

PEFT_PLUGIN("miss", "1.0.0", add)

// DeLoRA: Decoupling Angles and Strength in Low-rank Adaptation (Bini et al. 2025, arXiv 2503.18225):
// ΔW = λ/r · Σ_i b_i·a_i / (‖b_i‖‖a_i‖), with the columns of the result scaled to the norms of W's.
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/plugin.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's DeloraConfig.
struct DeloraOptions {
  int64_t r = 8;
  double delora_lambda = 15;
  double module_dropout = 0;
  bool init_weights = true;
  peft::IntMap rank_pattern;
  peft::NumberMap lambda_pattern;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

DeloraOptions read(peft::Options& in) {
  DeloraOptions o;
  in.get("r", o.r, "rank of the update").in_size_limit(o.r);
  in.get("delora_lambda", o.delora_lambda, "initial value of the update's trainable strength");
  in.get("module_dropout", o.module_dropout, "dropout probability of the update's input in training")
      .require(o.module_dropout >= 0 && o.module_dropout < 1, "must be at least 0 and below 1");
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "rank by module: regex of a name's suffix = rank")
      .in_size_limit(o.rank_pattern);
  in.get("lambda_pattern", o.lambda_pattern, "delora_lambda by module: regex of a name's suffix = delora_lambda");
  in.get("init_weights", o.init_weights, "true: A uniform, B zero; false: both random, for tests");
  return o;
}

class DeloraLayer final : public peft::FactoredLayer {
 public:
  DeloraLayer(const peft::Linear& site, int64_t r, double lambda, const DeloraOptions& o,
              const at::TensorOptions& tensor_options)
      : FactoredLayer(o.module_dropout) {
    const int64_t in = site.in_features(), out = site.out_features();
    A_ = register_parameter("delora_A", peft::init::kaiming_uniform({r, in}, tensor_options));
    B_ = register_parameter("delora_B", o.init_weights ? peft::init::zeros({out, r}, tensor_options)
                                                       : peft::init::kaiming_uniform({out, r}, tensor_options));
    lambda_ = register_parameter("delora_lambda", torch::full({1}, lambda, tensor_options));
    weight_norms_ =
        register_buffer("delora_w_norm", site.dense(c10::typeMetaToScalarType(tensor_options.dtype())).norm(2, 0));
  }

 protected:
  peft::LowRank factors() const override {
    // HF PEFT's bound, for directions of norm 0.
    const Tensor norms = A_.norm(2, 1).clamp_min(1e-4) * B_.norm(2, 0).clamp_min(1e-4);
    return {A_ * weight_norms_, B_ * (lambda_ / (static_cast<double>(A_.size(0)) * norms)), 1};
  }

 private:
  Tensor A_, B_, lambda_, weight_norms_;  // [r, in], [out, r], [1], [in]
};

class Delora final : public peft::TargetedAdapter {
 public:
  explicit Delora(DeloraOptions options)
      : TargetedAdapter("DELORA", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    ranks_ = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
    lambdas_ = peft::pattern_values(options_.lambda_pattern, sites, options_.delora_lambda, "lambda_pattern");
  }
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override {
    return std::make_shared<DeloraLayer>(site, ranks_[index], lambdas_[index], options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["bias"] = "none";
    config["delora_lambda"] = peft::config_number(options_.delora_lambda);
    config["init_weights"] = options_.init_weights;
    config["lambda_pattern"] = nlohmann::ordered_json::object();
    for (const auto& [key, value] : options_.lambda_pattern) config["lambda_pattern"][key] = peft::config_number(value);
    config["module_dropout"] = options_.module_dropout;
    config["r"] = options_.r;
    config["rank_pattern"] = nlohmann::ordered_json(options_.rank_pattern);
  }

 private:
  DeloraOptions options_;
  std::vector<int64_t> ranks_;
  std::vector<double> lambdas_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Delora>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("delora", make); }

}  // namespace

PEFT_PLUGIN("delora", "1.0.0", add)

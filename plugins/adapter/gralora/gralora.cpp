// GraLoRA: Granular Low-Rank Adaptation (Jung et al. 2025, arXiv 2505.20355): the weight is split into k × k blocks,
// each with its own low-rank update.
#include <peft/adapters/factored_layer.h>
#include <peft/adapters/init.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/plugin.h>

#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// The options and defaults of HF PEFT's GraloraConfig.
struct GraloraOptions {
  int64_t r = 32, hybrid_r = 0, gralora_k = 2;
  double alpha = 64;
  double gralora_dropout = 0;
  bool init_weights = true;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}, .has_exclude_modules = false};
};

GraloraOptions read(peft::Options& in) {
  GraloraOptions o;
  in.get("r", o.r, "rank of each row of blocks").in_size_limit(o.r);
  in.get("hybrid_r", o.hybrid_r, "rank of an additional LoRA of the full weight; 0: none")
      .require(o.hybrid_r >= 0, "must not be negative")
      .in_size_limit(std::max<int64_t>(o.hybrid_r, 1));
  in.get("alpha", o.alpha, "the update is scaled by alpha / (r + hybrid_r)");
  in.get("gralora_dropout", o.gralora_dropout, "dropout probability of the update's input in training")
      .require(o.gralora_dropout >= 0 && o.gralora_dropout < 1, "must be at least 0 and below 1");
  in.get("gralora_k", o.gralora_k, "blocks per dimension").in_size_limit(o.gralora_k);
  if (o.gralora_k > 0 && o.r % o.gralora_k != 0) in.error("r", "must be a multiple of gralora_k");
  peft::read_targets(in, o.targets);
  in.get("init_weights", o.init_weights, "true: A uniform, B zero; false: both random, for tests");
  return o;
}

/// k draws of [rows, columns], transposed: [k, columns, rows].
Tensor draw_stacked(int64_t k, int64_t rows, int64_t columns, bool zero, const at::TensorOptions& tensor_options) {
  std::vector<Tensor> parts;
  for (int64_t i = 0; i < k; ++i)
    parts.push_back(zero ? peft::init::zeros({rows, columns}, tensor_options)
                         : peft::init::kaiming_uniform({rows, columns}, tensor_options));
  return at::stack(parts).transpose(1, 2).contiguous();
}

class GraloraLayer final : public peft::FactoredLayer {
 public:
  GraloraLayer(const peft::Linear& site, const GraloraOptions& o, const at::TensorOptions& tensor_options)
      : FactoredLayer(o.gralora_dropout), scale_(o.alpha / static_cast<double>(o.r + o.hybrid_r)) {
    const int64_t in = site.in_features(), out = site.out_features(), k = o.gralora_k;
    A_ = register_parameter("gralora_A", draw_stacked(k, o.r, in / k, false, tensor_options));
    B_ = register_parameter("gralora_B", draw_stacked(k, out / k, o.r, o.init_weights, tensor_options));
    if (o.hybrid_r == 0) return;
    auto a = register_module("gralora_A_general", std::make_shared<torch::nn::Module>());
    auto b = register_module("gralora_B_general", std::make_shared<torch::nn::Module>());
    general_A_ = a->register_parameter("weight", peft::init::kaiming_uniform({o.hybrid_r, in}, tensor_options));
    general_B_ = b->register_parameter("weight", o.init_weights
                                                     ? peft::init::zeros({out, o.hybrid_r}, tensor_options)
                                                     : peft::init::kaiming_uniform({out, o.hybrid_r}, tensor_options));
  }

 protected:
  /// One product of rank k·r: row (j, n, s) of A reads only input block n and feeds only output block j.
  peft::LowRank factors() const override {
    const int64_t k = A_.size(0), r = A_.size(2);
    const Tensor I = torch::eye(k, A_.options());
    Tensor A = A_.unflatten(2, {k, r / k}).permute({2, 0, 3, 1}).unsqueeze(3) * I.view({1, k, 1, k, 1});
    Tensor B = B_.permute({2, 0, 1}).unsqueeze(0) * I.view({k, 1, k, 1});
    A = A.reshape({k * r, -1});
    B = B.reshape({-1, k * r});
    if (!general_A_.defined()) return {A, B, scale_};
    return {at::cat({A, general_A_}), at::cat({B, general_B_}, 1), scale_};
  }

 private:
  double scale_;
  Tensor A_, B_, general_A_, general_B_;  // [k, in/k, r], [k, r, out/k]; [hybrid_r, in], [out, hybrid_r]
};

class Gralora final : public peft::TargetedAdapter {
 public:
  explicit Gralora(GraloraOptions options)
      : TargetedAdapter("GRALORA", options.targets, options.init_weights), options_(std::move(options)) {}

 protected:
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t,
                                                 const at::TensorOptions& tensor_options) override {
    if (site.in_features() % options_.gralora_k != 0 || site.out_features() % options_.gralora_k != 0)
      throw peft::ConfigError("[adapter] gralora_k: " + std::to_string(options_.gralora_k) + " does not divide the " +
                              std::to_string(site.in_features()) + " inputs and " +
                              std::to_string(site.out_features()) + " outputs of '" + peft::printable(site.path()) +
                              "'");
    return std::make_shared<GraloraLayer>(site, options_, tensor_options);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["alpha"] = peft::config_number(options_.alpha);
    config["bias"] = "none";
    config["fan_in_fan_out"] = false;
    config["gralora_dropout"] = options_.gralora_dropout;
    config["gralora_k"] = options_.gralora_k;
    config["hybrid_r"] = options_.hybrid_r;
    config["init_weights"] = options_.init_weights;
    config["r"] = options_.r;
  }

 private:
  GraloraOptions options_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Gralora>(read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("gralora", make); }

}  // namespace

PEFT_PLUGIN("gralora", "1.0.0", add)

// LoHa: low-rank Hadamard product (Hyeon-Woo et al. 2021, FedPara, arXiv 2108.06098; Yeh et al. 2023, LyCORIS, arXiv
// 2309.14859): ΔW = alpha/r · (w1_a·w1_b) ⊙ (w2_a·w2_b).
#include <peft/factored_layer.h>
#include <peft/init.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace {

using torch::Tensor;

/// HF PEFT's LoHaConfig: its names, its defaults.
struct LohaOptions {
  int64_t r = 8;
  double alpha = 8;
  bool init_weights = true;
  peft::IntMap rank_pattern;
  peft::NumberMap alpha_pattern;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

LohaOptions read(peft::Options& in) {
  LohaOptions o;
  in.get("r", o.r, "rank of each of the two factors").require(o.r > 0, "must be positive");
  in.get("alpha", o.alpha, "the update is scaled by alpha / r");
  for (const char* dropout : {"rank_dropout", "module_dropout"}) {
    double probability = 0;
    in.get(dropout, probability, "0: not supported").require(probability == 0, "is not supported here: must be 0");
  }
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "other ranks: regex of a module name's end = rank")
      .require(std::all_of(o.rank_pattern.begin(), o.rank_pattern.end(), [](const auto& p) { return p.second > 0; }),
               "must give positive ranks");
  in.get("alpha_pattern", o.alpha_pattern, "other alphas: regex of a module name's end = alpha");
  in.get("init_weights", o.init_weights, "true: w2_b zero, the others uniform; false: all random, for tests");
  return o;
}

class LohaLayer final : public peft::FactoredLayer {
 public:
  LohaLayer(const peft::Linear& site, int64_t r, double scale, bool zero, const at::TensorOptions& form)
      : scale_(scale) {
    const int64_t in = site.in_features(), out = site.out_features();
    const auto drawn = [&](at::IntArrayRef shape) { return peft::init::kaiming_uniform(shape, form); };
    w1_a_ = register_parameter("hada_w1_a", drawn({out, r}));
    w1_b_ = register_parameter("hada_w1_b", drawn({r, in}));
    w2_a_ = register_parameter("hada_w2_a", drawn({out, r}));
    w2_b_ = register_parameter("hada_w2_b", zero ? peft::init::zeros({r, in}, form) : drawn({r, in}));
  }

 protected:
  /// Exactly one product of rank r²: its rows and columns are the products of all pairs of the factors'.
  peft::LowRank factors() const override {
    const Tensor A = (w1_b_.unsqueeze(1) * w2_b_.unsqueeze(0)).flatten(0, 1);
    const Tensor B = (w1_a_.unsqueeze(2) * w2_a_.unsqueeze(1)).flatten(1, 2);
    return {A, B, scale_};
  }

 private:
  double scale_;
  Tensor w1_a_, w1_b_, w2_a_, w2_b_;  // [out, r], [r, in], twice
};

class Loha final : public peft::TargetedAdapter {
 public:
  explicit Loha(LohaOptions options) : TargetedAdapter("LOHA", options.targets), options_(std::move(options)) {}
  bool starts_as_base() const override { return options_.init_weights; }

 protected:
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    ranks_ = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
    alphas_ = peft::pattern_values(options_.alpha_pattern, sites, options_.alpha, "alpha_pattern");
  }
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t index,
                                          const at::TensorOptions& form) override {
    const double scale = alphas_[index] / static_cast<double>(ranks_[index]);
    return std::make_shared<LohaLayer>(site, ranks_[index], scale, options_.init_weights, form);
  }
  void write_config(nlohmann::ordered_json& config) const override {
    config["alpha"] = peft::config_number(options_.alpha);
    config["alpha_pattern"] = nlohmann::ordered_json::object();
    for (const auto& [key, alpha] : options_.alpha_pattern) config["alpha_pattern"][key] = peft::config_number(alpha);
    config["init_weights"] = options_.init_weights;
    config["module_dropout"] = 0.0;
    config["r"] = options_.r;
    config["rank_dropout"] = 0.0;
    config["rank_pattern"] = nlohmann::ordered_json(options_.rank_pattern);
    config["use_effective_conv2d"] = false;
  }

 private:
  LohaOptions options_;
  std::vector<int64_t> ranks_;
  std::vector<double> alphas_;
};

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Loha>(read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("loha", make); }

}  // namespace

PEFT_PLUGIN("loha", "1.0.0", add)

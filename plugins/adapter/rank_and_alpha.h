#pragma once

#include <peft/adapters/targeted_adapter.h>

#include <algorithm>
#include <nlohmann/json.hpp>

/// Options that LoHa and LoKr (Yeh et al. 2023, LyCORIS, arXiv 2309.14859) share: the rank and the update's scale
/// alpha / rank, by module.
struct RankAndAlpha {
  int64_t r = 8;
  double alpha = 8;
  bool init_weights = true;
  peft::IntMap rank_pattern;
  peft::NumberMap alpha_pattern;
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

inline void read_rank_and_alpha(peft::Options& in, RankAndAlpha& o) {
  in.get("r", o.r, "rank of each factor that is a product of two matrices").in_size_limit(o.r);
  in.get("alpha", o.alpha, "the update is scaled by alpha / r");
  for (const char* dropout : {"rank_dropout", "module_dropout"}) {
    double probability = 0;
    in.get(dropout, probability, "not supported, must be 0")
        .require(probability == 0, "is not supported here: must be 0");
  }
  peft::read_targets(in, o.targets);
  in.get("rank_pattern", o.rank_pattern, "rank by module: regex of a name's suffix = rank")
      .in_size_limit(o.rank_pattern);
  in.get("alpha_pattern", o.alpha_pattern, "alpha by module: regex of a name's suffix = alpha");
}

/// A method whose layers have a rank and a scale.
class RankedAdapter : public peft::TargetedAdapter {
 protected:
  RankedAdapter(const std::string& peft_type, const RankAndAlpha& options)
      : TargetedAdapter(peft_type, options.targets, options.init_weights), options_(options) {}
  void prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions&) override {
    ranks_ = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
    alphas_ = peft::pattern_values(options_.alpha_pattern, sites, options_.alpha, "alpha_pattern");
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
  int64_t rank(std::size_t index) const { return ranks_[index]; }
  double scale(std::size_t index) const { return alphas_[index] / static_cast<double>(ranks_[index]); }

 private:
  RankAndAlpha options_;
  std::vector<int64_t> ranks_;
  std::vector<double> alphas_;
};

#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

/// Options that FourierFT and WaveFT share: n entries of a transform, at fixed random positions, are trainable.
struct FrequencyOptions {
  int64_t n_frequency;
  double scaling;
  bool init_weights;
  int64_t random_loc_seed = 777;
  peft::IntMap n_frequency_pattern = {};
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

inline void read_frequencies(peft::Options& in, FrequencyOptions& o) {
  in.get("n_frequency", o.n_frequency, "trainable entries per layer").require(o.n_frequency > 0, "must be positive");
  in.get("scaling", o.scaling, "factor of the update");
  in.get("random_loc_seed", o.random_loc_seed, "seed of the entries' positions")
      .require(o.random_loc_seed >= 0, "must not be negative");
  peft::read_targets(in, o.targets);
  in.get("n_frequency_pattern", o.n_frequency_pattern, "n_frequency by module: regex of a name's suffix = number")
      .require(std::all_of(o.n_frequency_pattern.begin(), o.n_frequency_pattern.end(),
                           [](const auto& p) { return p.second > 0; }),
               "must give positive numbers");
}

inline void write_frequencies(const FrequencyOptions& o, nlohmann::ordered_json& config) {
  config["bias"] = "none";
  config["fan_in_fan_out"] = false;
  config["init_weights"] = o.init_weights;
  config["n_frequency"] = o.n_frequency;
  config["n_frequency_pattern"] = nlohmann::ordered_json(o.n_frequency_pattern);
  config["random_loc_seed"] = o.random_loc_seed;
  config["scaling"] = o.scaling;
}

/// n_frequency of each site.
inline std::vector<int64_t> frequency_counts(const FrequencyOptions& o, const std::vector<peft::Site*>& sites) {
  return peft::pattern_values(o.n_frequency_pattern, sites, o.n_frequency, "n_frequency_pattern");
}

/// Positions of the n entries of a site, as offsets into its weight: the first n of a random permutation, drawn as in
/// HF PEFT.
inline torch::Tensor draw_positions(const peft::Linear& site, int64_t n, int64_t seed) {
  const int64_t all = site.in_features() * site.out_features();
  if (n > all)
    throw peft::ConfigError("[adapter] n_frequency: '" + peft::printable(site.path()) + "' has only " +
                            std::to_string(all) + " entries, not " + std::to_string(n));
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  return at::randperm(all, generator, torch::kLong).slice(0, 0, n).clone();
}

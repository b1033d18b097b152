#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>

/// What FourierFT and WaveFT share: of a transform's entries, n at places drawn once are trained.
struct FrequencyOptions {
  int64_t n_frequency;
  double scaling;
  bool init_weights;
  int64_t random_loc_seed = 777;
  peft::IntMap n_frequency_pattern = {};
  peft::Targets targets{.target_modules = peft::StringList{"q_proj", "v_proj"}};
};

inline void read_frequencies(peft::Options& in, FrequencyOptions& o) {
  in.get("n_frequency", o.n_frequency, "trained entries of each layer").require(o.n_frequency > 0, "must be positive");
  in.get("scaling", o.scaling, "the update is scaled by this");
  in.get("random_loc_seed", o.random_loc_seed, "seed of the entries' places")
      .require(o.random_loc_seed >= 0, "must not be negative");
  peft::read_targets(in, o.targets);
  in.get("n_frequency_pattern", o.n_frequency_pattern, "other numbers: regex of a module name's end = n_frequency")
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
inline std::vector<int64_t> frequencies_of(const FrequencyOptions& o, const std::vector<peft::Site*>& sites) {
  return peft::pattern_values(o.n_frequency_pattern, sites, o.n_frequency, "n_frequency_pattern");
}

/// Where the n entries of a site lie, as offsets into its weight: the first of a permutation of all, as PEFT draws
/// them.
inline torch::Tensor drawn_places(const peft::Linear& site, int64_t n, int64_t seed) {
  const int64_t all = site.in_features() * site.out_features();
  if (n > all)
    throw peft::ConfigError("[adapter] n_frequency: '" + peft::printable(site.path()) + "' has only " +
                            std::to_string(all) + " entries, not " + std::to_string(n));
  at::Generator generator = at::detail::createCPUGenerator(static_cast<uint64_t>(seed));
  return at::randperm(all, generator, torch::kLong).slice(0, 0, n).clone();
}

#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "peft/base/error.h"
#include "peft/base/export.h"
#include "peft/nn/site.h"
#include "peft/options/options.h"

namespace peft {

class Model;

/// Which modules a method adapts and which it trains in full, with HF PEFT's names and meaning. Every name, pattern and
/// index must match something: a typo is an error, not a smaller adapter.
struct Targets {
  /// A list matches full names or suffixes at dots; a string is a regex over the full name, or "all-linear": every
  /// Linear except the output head.
  StringOrList target_modules = StringList{};
  std::optional<StringOrList> exclude_modules = {};
  std::optional<IntList> layers_to_transform = {};  ///< only with a list; full names are not filtered
  std::optional<StringOrList> layers_pattern = {};  ///< regex of the name before the layer index; default: any
  std::optional<StringList> modules_to_save = {};   ///< suffixes of names of modules or their parents; not adapted
  /// Which of the keys HF PEFT's config of the method has.
  bool has_exclude_modules = true;
  bool has_layer_filter = true;  ///< layers_to_transform and layers_pattern
  bool has_modules_to_save = true;
  /// The kinds of sites that the method can adapt.
  enum class Sites { linear_and_embedding, norm, all };
  Sites sites = Sites::linear_and_embedding;
};

/// Reads the keys of Targets; the defaults are the values in `targets`.
PEFT_API void read_targets(Options& in, Targets& targets);
/// Writes the keys as HF PEFT does in adapter_config.json: lists sorted, "all-linear" as the names that it matched.
PEFT_API void write_targets(const Model& model, const Targets& targets, nlohmann::ordered_json& config);
/// A number as HF PEFT writes it: an integer if it has no fraction.
PEFT_API nlohmann::ordered_json config_number(double value);
/// A bool or a string.
PEFT_API nlohmann::ordered_json config_value(const BoolOrString& value);

/// The selected sites, in model order. Throws ConfigError with the names in the model if a target, exclusion or layer
/// index matches nothing, or if no site is left.
PEFT_API std::vector<Site*> select_sites(const Model& model, const Targets& targets);
/// The sites of `modules_to_save`, which train in full (Adapter::train_modules_to_save), in model order. Throws
/// ConfigError for a name that matches nothing.
PEFT_API std::vector<Site*> sites_to_save(const Model& model, const Targets& targets);

/// For each key (a regex of the full name or a suffix after a dot), the indices of the `sites` that it matches. Throws
/// ConfigError that names `option` for a key that matches none.
PEFT_API std::vector<std::vector<std::size_t>> match_suffixes(const StringList& keys, const std::vector<Site*>& sites,
                                                              const std::string& option);

/// The value of each site by HF PEFT's rank_pattern or alpha_pattern. HF PEFT takes the first key of its dict that
/// matches; TOML and JSON tables have no order, so two keys with different values for a site are a ConfigError.
template <class Value>
std::vector<Value> pattern_values(const std::map<std::string, Value>& patterns, const std::vector<Site*>& sites,
                                  Value default_value, const std::string& option) {
  StringList keys;
  for (const auto& [key, value] : patterns) keys.push_back(key);
  const auto matches = match_suffixes(keys, sites, option);
  std::vector<Value> values(sites.size(), default_value);
  std::vector<const std::string*> matched_by(sites.size());
  for (std::size_t k = 0; k < keys.size(); ++k) {
    const Value value = patterns.at(keys[k]);
    for (const std::size_t i : matches[k]) {
      if (matched_by[i] != nullptr && values[i] != value)
        throw ConfigError("[adapter] " + option + ": '" + printable(*matched_by[i]) + "' and '" + printable(keys[k]) +
                          "' give different values to '" + printable(sites[i]->path()) +
                          "'; write patterns that do not overlap");
      values[i] = value;
      matched_by[i] = &keys[k];
    }
  }
  return values;
}

}  // namespace peft

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

/// Which modules a method adapts and which it trains whole, with HF PEFT's names and meaning. Every name, pattern and
/// index must match something: a slip of the pen is an error, not an adapter that is smaller than it should be.
struct Targets {
  /// A list matches whole names or suffixes at dots; a string is a regex over the whole name, or "all-linear": every
  /// Linear but the output head.
  StringOrList target_modules = StringList{};
  std::optional<StringOrList> exclude_modules = {};
  std::optional<IntList> layers_to_transform = {};  ///< only with a list; whole names are not filtered
  std::optional<StringOrList> layers_pattern = {};  ///< regex of the name before the layer's index; default: any
  std::optional<StringList> modules_to_save = {};   ///< ends of names, of modules or what holds them; not adapted
  /// Which of the keys PEFT's config of the method has.
  bool has_exclude_modules = true;  ///< exclude_modules
  bool has_layer_filter = true;     ///< layers_to_transform and layers_pattern
  bool has_modules_to_save = true;  ///< modules_to_save
  /// What can be adapted.
  enum class Sites { linear_and_embedding, norm, all };
  Sites sites = Sites::linear_and_embedding;
};

/// Reads the keys of Targets; the defaults are what `targets` holds.
PEFT_API void read_targets(Options& in, Targets& targets);
/// Writes them as PEFT's adapter_config.json has them: lists sorted, "all-linear" as the names it stood for.
PEFT_API void write_targets(const Model& model, const Targets& targets, nlohmann::ordered_json& config);
/// A number as PEFT writes it: a whole one as an integer.
PEFT_API nlohmann::ordered_json config_number(double value);
/// A bool or string as it is.
PEFT_API nlohmann::ordered_json config_value(const BoolOrString& value);

/// The sites chosen, in model order, of the kinds that `targets` says. Throws ConfigError,
/// with the names there are, where any target, exclusion or layer index matches nothing, or nothing is left.
PEFT_API std::vector<Site*> select_sites(const Model& model, const Targets& targets);
/// The sites of the modules of `modules_to_save`, which are trained as they are (Adapter::train_modules_to_save), in
/// model order. Throws ConfigError for a name that matches nothing.
PEFT_API std::vector<Site*> sites_to_save(const Model& model, const Targets& targets);

/// For each key (a regex from a dot, or the beginning, to the end of the name), which of `sites` it matches, as
/// indices. Throws ConfigError, naming `option`, for a key that matches none.
PEFT_API std::vector<std::vector<std::size_t>> match_suffixes(const StringList& keys, const std::vector<Site*>& sites,
                                                              const std::string& option);

/// The value of each site by PEFT's rank_pattern or alpha_pattern. PEFT takes the first key that matches in the order
/// of its dict; TOML and JSON tables have no order, so two keys that disagree about a site are a ConfigError.
template <class Value>
std::vector<Value> pattern_values(const std::map<std::string, Value>& patterns, const std::vector<Site*>& sites,
                                  Value otherwise, const std::string& option) {
  StringList keys;
  for (const auto& [key, value] : patterns) keys.push_back(key);
  const auto matches = match_suffixes(keys, sites, option);
  std::vector<Value> values(sites.size(), otherwise);
  std::vector<const std::string*> by(sites.size());
  for (std::size_t k = 0; k < keys.size(); ++k) {
    const Value value = patterns.at(keys[k]);
    for (const std::size_t i : matches[k]) {
      if (by[i] != nullptr && values[i] != value)
        throw ConfigError("[adapter] " + option + ": '" + printable(*by[i]) + "' and '" + printable(keys[k]) +
                          "' give different values to '" + printable(sites[i]->path()) +
                          "'; write patterns that do not overlap");
      values[i] = value;
      by[i] = &keys[k];
    }
  }
  return values;
}

}  // namespace peft

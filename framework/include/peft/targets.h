#pragma once

#include <optional>
#include <vector>

#include "peft/export.h"
#include "peft/options.h"

namespace peft {

class Model;
class Site;

/// Which modules a method adapts, with HF PEFT's meaning.
struct Targets {
  /// A list matches whole names or suffixes at dots; a string is a regex over the whole name, or "all-linear".
  StringOrList target_modules = StringList{};
  std::optional<StringOrList> exclude_modules;
  std::optional<IntList> layers_to_transform;
  std::optional<StringOrList> layers_pattern;
};

/// The sites chosen, in model order: Linear and Embedding only. Throws ConfigError, with the names there are, where
/// any pattern of the list, any layer index or any exclusion matches nothing.
PEFT_API std::vector<Site*> select_sites(const Model& model, const Targets& targets);

/// The value of the first pattern that matches `path` at its end, as HF PEFT's rank_pattern and alpha_pattern do.
template <class Value>
Value pattern_value(const std::map<std::string, Value>& patterns, const std::string& path, Value otherwise);

/// True if `pattern` (a regex) matches `path` from a dot, or the beginning, to its end.
PEFT_API bool matches_at_end(const std::string& pattern, const std::string& path);

template <class Value>
Value pattern_value(const std::map<std::string, Value>& patterns, const std::string& path, Value otherwise) {
  for (const auto& [pattern, value] : patterns)
    if (matches_at_end(pattern, path)) return value;
  return otherwise;
}

}  // namespace peft

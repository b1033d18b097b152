// HF PEFT's rules for selecting modules, made strict: check_target_module_exists, _maybe_include_all_linear_layers,
// _find_minimal_target_modules, get_pattern_key and _set_trainable of HF PEFT 0.21.
#include "peft/adapters/targets.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "adapters/lenient_targets.h"
#include "adapters/name_pattern.h"
#include "base/first_lines.h"
#include "peft/models/model.h"

namespace peft {

namespace {

using Matcher = std::function<bool(const std::string&)>;

bool has_suffix_at_dot(const std::string& path, const std::string& name) {
  return path == name || path.ends_with("." + name);
}

std::string leaf(const std::string& path) { return path.substr(path.rfind('.') + 1); }

bool is_linear_or_embedding(const Site* site) {
  return dynamic_cast<const Linear*>(site) != nullptr || dynamic_cast<const Embedding*>(site) != nullptr;
}

bool is_all_linear(const StringOrList& targets) {
  const auto* text = std::get_if<std::string>(&targets);
  if (text == nullptr) return false;
  const std::string word = "all-linear";
  return std::equal(text->begin(), text->end(), word.begin(), word.end(),
                    [](char a, char b) { return (a >= 'A' && a <= 'Z' ? a - 'A' + 'a' : a) == b; });
}

/// "q_proj (30), k_proj (30), …": the last components of the names of `sites`, with their counts.
std::string describe_names(const std::vector<Site*>& sites) {
  std::vector<std::pair<std::string, int>> counts;
  for (const Site* site : sites) {
    const std::string name = leaf(site->path());
    const auto it = std::find_if(counts.begin(), counts.end(), [&](const auto& c) { return c.first == name; });
    if (it == counts.end())
      counts.emplace_back(name, 1);
    else
      ++it->second;
  }
  constexpr std::size_t max_names = 40;
  std::string text;
  for (std::size_t i = 0; i < std::min(counts.size(), max_names); ++i)
    text += (i > 0 ? ", " : "") + printable(counts[i].first) + " (" + std::to_string(counts[i].second) + ")";
  return text + (counts.size() > max_names ? ", …" : "");
}

/// Collects what matched nothing, so that one error reports it all.
class Unmatched {
 public:
  explicit Unmatched(std::vector<Site*> sites) : sites_(std::move(sites)) {}
  void add_name(const std::string& option, const std::string& wanted) {
    if (lines_.full()) return lines_.add("");  // finding the nearest name is costly
    StringList known;
    for (const Site* site : sites_) known.insert(known.end(), {leaf(site->path()), site->path()});
    const std::string suggestion = nearest(wanted, known);
    add(option + ": '" + printable(wanted) + "' matches nothing" +
        (suggestion.empty() ? "" : "; did you mean '" + printable(suggestion) + "'?"));
  }
  /// A regex for the full name, where names of modules were probably meant.
  void add_regex(const std::string& option, const std::string& wanted) {
    const std::string list = as_list(wanted);
    if (list.empty()) return add_name(option, wanted);
    add(option + ": a string is one regular expression for a module's full name, and '" + printable(wanted) +
        "' matches none; write " + list);
  }
  void add(const std::string& line) { lines_.add("[adapter] " + line); }
  void throw_if_any() const {
    if (!LenientTargets::active()) throw_even_if_lenient();
  }
  void throw_even_if_lenient() const {
    if (!lines_.empty()) throw ConfigError(lines_.text() + "\nthe model has " + describe_names(sites_));
  }

 private:
  /// `["q_proj", "v_proj"]` of "q_proj,v_proj" or "q_proj|v_proj", if the model has all of these names; else "".
  std::string as_list(std::string names) const {
    std::string list;
    std::replace_if(names.begin(), names.end(), [](char c) { return c == ',' || c == '|'; }, ' ');
    std::istringstream words(names);
    for (std::string name; words >> name;) {
      if (std::none_of(sites_.begin(), sites_.end(), [&](const Site* s) { return has_suffix_at_dot(s->path(), name); }))
        return "";
      list += (list.empty() ? "[\"" : ", \"") + printable(name) + "\"";
    }
    return list.empty() ? "" : list + "]";
  }
  std::vector<Site*> sites_;
  detail::FirstLines lines_;
};

/// One matcher for a regex, or one for each name of a list, so that each name that matches nothing can be reported.
std::vector<std::pair<std::string, Matcher>> matchers(const StringOrList& wanted, const std::string& option) {
  std::vector<std::pair<std::string, Matcher>> all;
  if (const auto* expression = std::get_if<std::string>(&wanted)) {
    const auto pattern = std::make_shared<NamePattern>(NamePattern::full(*expression, "[adapter] " + option));
    all.emplace_back(*expression, [pattern](const std::string& path) { return pattern->match(path).has_value(); });
  } else {
    for (const std::string& name : std::get<StringList>(wanted))
      all.emplace_back(name, [name](const std::string& path) { return has_suffix_at_dot(path, name); });
  }
  return all;
}

void add_unmatched(Unmatched& unmatched, const std::string& option, const StringOrList& wanted,
                   const std::string& name) {
  if (std::holds_alternative<std::string>(wanted))
    unmatched.add_regex(option, name);
  else
    unmatched.add_name(option, name);
}

/// Finds a layer's index in a module's name as HF PEFT does: the first number after layers_pattern.
class LayerIndex {
 public:
  explicit LayerIndex(const std::optional<StringOrList>& pattern) {
    StringList expressions;
    if (pattern) {
      if (const auto* expression = std::get_if<std::string>(&*pattern))
        expressions.push_back(*expression);
      else
        expressions = std::get<StringList>(*pattern);
    }
    std::erase(expressions, "");
    const std::string where = "[adapter] layers_pattern";
    for (const std::string& expression : expressions)
      patterns_.push_back(NamePattern::prefix("(?:^|.*?\\.)" + expression + "\\.(?P<idx>\\d+)\\.", where));
    if (expressions.empty()) patterns_.push_back(NamePattern::prefix(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)", where));
  }
  std::optional<int64_t> find(const std::string& path) const {
    for (const NamePattern& pattern : patterns_) {
      const auto digits = pattern.match(path);
      if (!digits) continue;
      int64_t index = 0;
      const auto [end, error] = std::from_chars(digits->data(), digits->data() + digits->size(), index);
      if (error == std::errc() && end == digits->data() + digits->size()) return index;
      return std::nullopt;
    }
    return std::nullopt;
  }

 private:
  std::vector<NamePattern> patterns_;
};

/// HF PEFT compares suffixes without regard to dots; a module that contains sites stands for all of them.
bool trains_in_full(const std::string& path, const std::string& name) {
  for (auto end = path.size(); end != path.npos && end > 0; end = path.rfind('.', end - 1))
    if (std::string_view(path).substr(0, end).ends_with(name)) return true;
  return false;
}

bool trains_in_full(const std::string& path, const Targets& targets) {
  return targets.modules_to_save && std::any_of(targets.modules_to_save->begin(), targets.modules_to_save->end(),
                                                [&](const std::string& name) { return trains_in_full(path, name); });
}

/// `candidates` without the excluded sites.
std::vector<Site*> without_excluded(const std::vector<Site*>& sites, const Targets& targets,
                                    std::vector<Site*> candidates, Unmatched& unmatched) {
  if (!targets.exclude_modules || *targets.exclude_modules == StringOrList("")) return candidates;
  for (const auto& [name, matches] : matchers(*targets.exclude_modules, "exclude_modules")) {
    if (std::none_of(sites.begin(), sites.end(), [&](Site* site) { return matches(site->path()); }))
      add_unmatched(unmatched, "exclude_modules", *targets.exclude_modules, name);
    std::erase_if(candidates, [&](Site* site) { return matches(site->path()); });
  }
  return candidates;
}

/// The `sites` that a list or a regex matches. Layer indices filter only suffix matches, as in HF PEFT.
std::set<Site*> matched(const std::vector<Site*>& sites, const Targets& targets, Unmatched& unmatched) {
  std::set<Site*> matching;
  std::optional<LayerIndex> index;
  if (targets.layers_to_transform && !targets.layers_to_transform->empty()) index.emplace(targets.layers_pattern);
  std::set<int64_t> wanted, found;
  if (index) wanted.insert(targets.layers_to_transform->begin(), targets.layers_to_transform->end());
  bool every_name_matches = true;
  for (const auto& [name, matches] : matchers(targets.target_modules, "target_modules")) {
    bool any = false;
    for (Site* site : sites) {
      if (!matches(site->path())) continue;
      any = true;
      if (index && site->path() != name) {
        const auto layer = index->find(site->path());
        if (!layer || !wanted.contains(*layer)) continue;
        found.insert(*layer);
      }
      matching.insert(site);
    }
    if (!any) add_unmatched(unmatched, "target_modules", targets.target_modules, name);
    every_name_matches = every_name_matches && any;
  }
  if (every_name_matches)
    for (const int64_t layer : wanted)
      if (!found.contains(layer)) unmatched.add("layers_to_transform: no target is in layer " + std::to_string(layer));
  return matching;
}

std::vector<Site*> all_linear(const Model& model) {
  std::vector<Site*> all;
  for (Site* site : model.sites())
    if (dynamic_cast<Linear*>(site) != nullptr && site != model.output_embedding()) all.push_back(site);
  return all;
}

/// The names that "all-linear" matches: the last components if these match no other site, else full paths.
StringList names_of_all_linear(const Model& model) {
  std::set<std::string> leaves, paths;
  for (const Site* site : all_linear(model)) {
    leaves.insert(leaf(site->path()));
    paths.insert(site->path());
  }
  const bool exact = std::all_of(model.sites().begin(), model.sites().end(), [&](const Site* site) {
    return paths.contains(site->path()) || !leaves.contains(leaf(site->path()));
  });
  const auto& names = exact ? leaves : paths;
  return {names.begin(), names.end()};
}

bool is_adaptable_by(const Site* site, const Targets& targets) {
  const bool norm = dynamic_cast<const Norm*>(site) != nullptr;
  switch (targets.sites) {
    case Targets::Sites::norm:
      return norm;
    case Targets::Sites::all:
      return norm || is_linear_or_embedding(site);
    case Targets::Sites::linear_and_embedding:
      return is_linear_or_embedding(site);
  }
  return false;
}

nlohmann::ordered_json sorted_json(const std::optional<StringOrList>& value) {
  if (!value) return nullptr;
  if (const auto* text = std::get_if<std::string>(&*value)) return *text;
  const auto& list = std::get<StringList>(*value);
  return std::set<std::string>(list.begin(), list.end());
}

void read_layers(Options& in, Targets& targets) {
  in.get("layers_to_transform", targets.layers_to_transform, "indices of the layers to adapt; default: all")
      .require(!targets.layers_to_transform || std::holds_alternative<StringList>(targets.target_modules),
               "needs target_modules to be a list");
  in.get("layers_pattern", targets.layers_pattern, "regex of the name before a layer's index, if the model has several")
      .require(!targets.layers_pattern || targets.layers_to_transform, "needs layers_to_transform");
}

}  // namespace

void read_targets(Options& in, Targets& targets) {
  in.get("target_modules", targets.target_modules,
         "modules to adapt: a list of names or of suffixes at dots, a regex over the full name, or \"all-linear\"")
      .require(targets.target_modules != StringOrList(StringList{}) && targets.target_modules != StringOrList(""),
               "must name at least one module");
  if (targets.has_exclude_modules)
    in.get("exclude_modules", targets.exclude_modules, "modules to exclude: a list of names or a regex");
  if (targets.has_layer_filter) read_layers(in, targets);
  if (targets.has_modules_to_save)
    in.get("modules_to_save", targets.modules_to_save, "modules to train in full and save with the adapter");
}

void write_targets(const Model& model, const Targets& targets, nlohmann::ordered_json& config) {
  config["target_modules"] = sorted_json(
      is_all_linear(targets.target_modules) ? StringOrList(names_of_all_linear(model)) : targets.target_modules);
  if (targets.has_exclude_modules) config["exclude_modules"] = sorted_json(targets.exclude_modules);
  if (targets.has_layer_filter) {
    config["layers_to_transform"] = nullptr;
    if (targets.layers_to_transform) config["layers_to_transform"] = *targets.layers_to_transform;
    config["layers_pattern"] = sorted_json(targets.layers_pattern);
  }
  if (!targets.has_modules_to_save) return;
  config["modules_to_save"] = nullptr;
  if (targets.modules_to_save) config["modules_to_save"] = *targets.modules_to_save;
}

nlohmann::ordered_json config_number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return static_cast<int64_t>(value);
  return value;
}

nlohmann::ordered_json config_value(const BoolOrString& value) {
  return std::visit([](const auto& v) -> nlohmann::ordered_json { return v; }, value);
}

std::vector<Site*> select_sites(const Model& model, const Targets& targets) {
  std::vector<Site*> sites = model.sites();
  std::erase_if(sites, [&](const Site* site) { return !is_adaptable_by(site, targets); });
  Unmatched unmatched(sites);
  std::vector<Site*> chosen;
  if (is_all_linear(targets.target_modules)) {
    chosen = all_linear(model);
  } else {
    const std::set<Site*> found = matched(sites, targets, unmatched);
    std::copy_if(sites.begin(), sites.end(), std::back_inserter(chosen), [&](Site* s) { return found.contains(s); });
  }
  chosen = without_excluded(sites, targets, std::move(chosen), unmatched);
  unmatched.throw_if_any();
  std::erase_if(chosen, [&](Site* site) { return trains_in_full(site->path(), targets); });
  if (!chosen.empty()) return chosen;
  unmatched.throw_even_if_lenient();
  throw ConfigError("[adapter] target_modules: no module is left after exclude_modules and modules_to_save");
}

std::vector<Site*> sites_to_save(const Model& model, const Targets& targets) {
  if (!targets.modules_to_save) return {};
  Unmatched unmatched(model.sites());
  for (const std::string& name : *targets.modules_to_save)
    if (name.empty() || std::none_of(model.sites().begin(), model.sites().end(),
                                     [&](Site* site) { return trains_in_full(site->path(), name); }))
      unmatched.add_name("modules_to_save", name);
  unmatched.throw_if_any();
  std::vector<Site*> sites;
  for (Site* site : model.sites())
    if (trains_in_full(site->path(), targets)) sites.push_back(site);
  return sites;
}

std::vector<std::vector<std::size_t>> match_suffixes(const StringList& keys, const std::vector<Site*>& sites,
                                                     const std::string& option) {
  Unmatched unmatched(sites);
  std::vector<std::vector<std::size_t>> all(keys.size());
  for (std::size_t k = 0; k < keys.size(); ++k) {
    const NamePattern pattern = NamePattern::suffix(keys[k], "[adapter] " + option);
    for (std::size_t i = 0; i < sites.size(); ++i)
      if (pattern.match(sites[i]->path())) all[k].push_back(i);
    if (all[k].empty()) unmatched.add_name(option, keys[k]);
  }
  unmatched.throw_if_any();
  return all;
}

}  // namespace peft

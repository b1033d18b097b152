#include "peft/adapters/token_layers.h"

#include <torch/nn/module.h>
#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <set>

#include "adapters/lenient_targets.h"
#include "peft/adapters/hf_format.h"
#include "peft/adapters/init.h"
#include "peft/base/error.h"
#include "peft/models/model.h"

namespace peft {

namespace {

constexpr char kRows[] = "trainable_tokens_delta";

[[noreturn]] void throw_config_error(const std::string& option, const std::string& what) {
  throw ConfigError("[adapter] " + option + ": " + what);
}

void check_tokens(const Site& site, const IntList& tokens, const std::string& option) {
  const int64_t rows = site.weight_sizes()[0];
  std::set<int64_t> seen;
  if (tokens.empty()) throw_config_error(option, "lists no token of '" + printable(site.path()) + "'");
  for (const int64_t token : tokens) {
    if (token < 0 || token >= rows)
      throw_config_error(option, "token " + std::to_string(token) + " does not exist: '" + printable(site.path()) +
                                     "' has rows 0 to " + std::to_string(rows - 1));
    if (!seen.insert(token).second) throw_config_error(option, "token " + std::to_string(token) + " is listed twice");
  }
}

void check_site(const Site& site, const std::string& option) {
  const std::string name = std::string("'").append(printable(site.path())).append("' ");
  const bool is_embedding = dynamic_cast<const Embedding*>(&site) != nullptr;
  if (!is_embedding && dynamic_cast<const Linear*>(&site) == nullptr)
    throw_config_error(option, name + "is neither an embedding nor a linear layer");
  if (site.base_bias().defined()) throw_config_error(option, name + "has a bias, which HF PEFT's layer would omit");
  if (site.has_adapter())
    throw_config_error(option, name + "is already adapted or trained, by target_modules or modules_to_save");
}

/// Replaces some rows of a weight by trainable ones: an embedding looks them up, a linear layer has them as outputs.
class TokenRows final : public AdapterLayer {
 public:
  TokenRows(const Site& site, const IntList& tokens, const TokenLayerOptions& options) {
    const Tensor weight = site.dense();
    set_tokens(weight, tokens);
    const Tensor initial = options.random ? init::normal({ids_.size(0), weight.size(1)}, 1, options.tensor_options)
                                          : weight.index_select(0, ids_).to(options.tensor_options.dtype());
    Module* holder = this;
    if (!options.holder.empty()) holder = register_module(options.holder, std::make_shared<Module>()).get();
    rows_ = holder->register_parameter(kRows, initial.detach().clone());
    is_embedding_ = dynamic_cast<const Embedding*>(&site) != nullptr;
  }
  /// For a head tied to an embedding with the layer `embedding_layer`.
  explicit TokenRows(const std::shared_ptr<const TokenRows>& embedding_layer)
      : rows_(embedding_layer->rows_), ids_(embedding_layer->ids_), tied_to_(embedding_layer) {}

  Tensor forward(const Tensor& x, const Next& next) override {
    const Tensor y = next(x);
    const Tensor rows = rows_.to(y.scalar_type());
    if (!is_embedding_) return y.index_copy(-1, ids_, at::linear(x, rows));
    const Tensor slot = slots_.index_select(0, x.flatten()).view(x.sizes());
    return at::where((slot >= 0).unsqueeze(-1), at::embedding(rows, slot.clamp_min(0)), y);
  }

  bool merge_into(WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    weights.weight.index_copy_(0, ids_.to(weights.weight.device()), rows_.to(weights.weight.options()));
    return true;
  }

  const AdapterLayer* tied_to() const override { return tied_to_.get(); }

 private:
  void set_tokens(const Tensor& weight, const IntList& tokens) {
    ids_ = torch::tensor(tokens, torch::kLong).to(weight.device());
    slots_ = torch::full({weight.size(0)}, -1, ids_.options());
    slots_.index_copy_(0, ids_, torch::arange(ids_.size(0), ids_.options()));
  }
  Tensor rows_;   // [tokens, hidden]
  Tensor ids_;    // [tokens]
  Tensor slots_;  // [vocabulary]: index into rows_, or -1; only for an embedding
  bool is_embedding_ = false;
  std::shared_ptr<const TokenRows> tied_to_;
};

}  // namespace

std::vector<std::pair<Site*, std::shared_ptr<AdapterLayer>>> make_token_layers(
    const Model& model, const std::vector<std::pair<Site*, IntList>>& tokens, const TokenLayerOptions& options) {
  std::vector<std::pair<Site*, std::shared_ptr<AdapterLayer>>> layers;
  const IntList* embedding_ids = nullptr;
  for (const auto& [site, ids] : tokens)
    if (site == &model.embedding()) embedding_ids = &ids;
  const bool tied = model.config().tie_word_embeddings && embedding_ids != nullptr;
  std::shared_ptr<TokenRows> embedding_layer;
  bool head_has_layer = false;
  for (const auto& [site, ids] : tokens) {
    if (tied && site == model.output_embedding() && ids == *embedding_ids) continue;
    check_site(*site, options.option);
    check_tokens(*site, ids, options.option);
    auto layer = std::make_shared<TokenRows>(*site, ids, options);
    if (site == &model.embedding()) embedding_layer = layer;
    head_has_layer = head_has_layer || site == model.output_embedding();
    layers.emplace_back(site, std::move(layer));
  }
  if (!tied || head_has_layer) return layers;
  check_site(*model.output_embedding(), options.option);
  layers.emplace_back(model.output_embedding(), std::make_shared<TokenRows>(embedding_layer));
  return layers;
}

std::vector<std::pair<Site*, IntList>> token_sites(const Model& model, const TokenIndices& indices,
                                                   const std::string& option) {
  if (const auto* list = std::get_if<IntList>(&indices)) return {{&model.embedding(), *list}};
  std::vector<std::pair<Site*, IntList>> sites;
  for (const auto& [name, ids] : std::get<IntListMap>(indices)) {
    const auto before = sites.size();
    for (Site* site : model.sites()) {
      if (name.empty() || !site->path().ends_with(name)) continue;
      if (std::any_of(sites.begin(), sites.end(), [&](const auto& item) { return item.first == site; }))
        throw_config_error(option, "two names match '" + printable(site->path()) + "'");
      sites.emplace_back(site, ids);
    }
    if (sites.size() == before && !LenientTargets::active())
      throw_config_error(
          option, "'" + printable(name) + "' matches nothing; the embedding is '" + model.embedding().path() + "'");
  }
  if (sites.empty() && !LenientTargets::active()) throw_config_error(option, "lists no token");
  return sites;
}

std::vector<std::pair<std::string, std::string>> tied_keys(const Model& model, const StateDict& file) {
  std::vector<std::pair<std::string, std::string>> pairs;
  if (model.output_embedding() == nullptr) return pairs;
  const auto& head_layers = model.output_embedding()->layers();
  if (std::none_of(head_layers.begin(), head_layers.end(),
                   [](const auto& layer) { return layer->tied_to() != nullptr; }))
    return pairs;
  const std::string prefix = hf_key(model.embedding(), "");
  for (const auto& [key, tensor] : file)
    if (key.starts_with(prefix) && key.ends_with(kRows))
      pairs.emplace_back(key, hf_key(*model.output_embedding(), key.substr(prefix.size())));
  return pairs;
}

StateDict without_tied_keys(const Model& model, StateDict file) {
  for (const auto& [key, head_key] : tied_keys(model, file)) {
    const auto found = file.find(head_key);
    if (found == file.end()) continue;
    if (!at::equal(found->second, file.at(key)))
      throw InputError(printable(head_key) + " differs from " + printable(key) +
                       ", to which this model's head is tied");
    file.erase(found);
  }
  return file;
}

}  // namespace peft

#include "peft/adapters/token_layers.h"

#include <torch/torch.h>

#include <algorithm>
#include <set>

#include "peft/adapters/init.h"
#include "peft/base/error.h"
#include "peft/models/decoder.h"

namespace peft {

namespace {

constexpr char kRows[] = "trainable_tokens_delta";

[[noreturn]] void refuse(const std::string& option, const std::string& what) {
  throw ConfigError("[adapter] " + option + ": " + what);
}

void check_tokens(const Site& site, const IntList& tokens, const std::string& option) {
  const int64_t rows = site.frozen().weight.size(0);
  std::set<int64_t> seen;
  if (tokens.empty()) refuse(option, "names no token of '" + printable(site.path()) + "'");
  for (const int64_t token : tokens) {
    if (token < 0 || token >= rows)
      refuse(option, std::to_string(token) + " is no token: '" + printable(site.path()) + "' has rows 0 to " +
                         std::to_string(rows - 1));
    if (!seen.insert(token).second) refuse(option, std::to_string(token) + " is named twice");
  }
}

void check_site(const Site& site, const std::string& option) {
  const std::string name = std::string("'").append(printable(site.path())).append("' ");
  const bool embedding = dynamic_cast<const Embedding*>(&site) != nullptr;
  if (!embedding && dynamic_cast<const Linear*>(&site) == nullptr)
    refuse(option, name + "is neither an embedding nor a linear layer");
  if (site.frozen().bias.defined()) refuse(option, name + "has a bias, which PEFT's layer would leave out");
  if (site.has_adapter()) refuse(option, name + "is adapted or trained already, by target_modules or modules_to_save");
}

/// Trained rows in place of some of a weight's. Of an embedding they are looked up, of a linear layer they are outputs.
class TokenRows final : public AdapterLayer {
 public:
  TokenRows(const Site& site, const IntList& tokens, const TokenLayerOptions& tensor_options) {
    const Tensor& weight = site.frozen().weight;
    use(weight, tokens);
    const Tensor start = tensor_options.random ? init::normal({where_.size(0), weight.size(1)}, 1, tensor_options.rows)
                                               : weight.index_select(0, where_).to(tensor_options.rows.dtype());
    Module* holder = this;
    if (!tensor_options.holder.empty())
      holder = register_module(tensor_options.holder, std::make_shared<Module>()).get();
    rows_ = holder->register_parameter(kRows, start.detach().clone());
    lookup_ = dynamic_cast<const Embedding*>(&site) != nullptr;
  }
  /// For a head tied to the embedding whose layer is `leader`.
  explicit TokenRows(const std::shared_ptr<const TokenRows>& leader)
      : rows_(leader->rows_), where_(leader->where_), leader_(leader) {}

  Tensor forward(const Tensor& x, const Next& next) override {
    const Tensor y = next(x);
    const Tensor rows = rows_.to(y.scalar_type());
    if (!lookup_) return y.index_copy(-1, where_, at::linear(x, rows));
    const Tensor slot = slots_.index_select(0, x.flatten()).view(x.sizes());
    return at::where((slot >= 0).unsqueeze(-1), at::embedding(rows, slot.clamp_min(0)), y);
  }

  bool merge_into(WeightAndBias& weights) const override {
    const torch::NoGradGuard no_grad;
    weights.weight.index_copy_(0, where_.to(weights.weight.device()), rows_.to(weights.weight.options()));
    return true;
  }

  const AdapterLayer* tied_to() const override { return leader_.get(); }

 private:
  void use(const Tensor& weight, const IntList& tokens) {
    where_ = torch::tensor(tokens, torch::kLong).to(weight.device());
    slots_ = torch::full({weight.size(0)}, -1, where_.options());
    slots_.index_copy_(0, where_, torch::arange(where_.size(0), where_.options()));
  }
  Tensor rows_;   // [tokens, hidden]
  Tensor where_;  // [tokens]: ids
  Tensor slots_;  // [vocabulary]: which of rows_, or -1; of an embedding
  bool lookup_ = false;
  std::shared_ptr<const TokenRows> leader_;
};

}  // namespace

std::vector<std::pair<Site*, std::shared_ptr<AdapterLayer>>> make_token_layers(
    const Model& model, const std::vector<std::pair<Site*, IntList>>& tokens, const TokenLayerOptions& tensor_options) {
  std::vector<std::pair<Site*, std::shared_ptr<AdapterLayer>>> layers;
  const IntList* of_embedding = nullptr;
  for (const auto& [site, ids] : tokens)
    if (site == &model.embedding()) of_embedding = &ids;
  const bool tied = model.config().tie_word_embeddings && of_embedding != nullptr;
  std::shared_ptr<TokenRows> shared;
  bool own_head = false;
  for (const auto& [site, ids] : tokens) {
    if (tied && site == &model.lm_head() && ids == *of_embedding) continue;
    check_site(*site, tensor_options.option);
    check_tokens(*site, ids, tensor_options.option);
    auto layer = std::make_shared<TokenRows>(*site, ids, tensor_options);
    if (site == &model.embedding()) shared = layer;
    own_head = own_head || site == &model.lm_head();
    layers.emplace_back(site, std::move(layer));
  }
  if (!tied || own_head) return layers;
  check_site(model.lm_head(), tensor_options.option);
  layers.emplace_back(&model.lm_head(), std::make_shared<TokenRows>(shared));
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
      if (std::any_of(sites.begin(), sites.end(), [&](const auto& one) { return one.first == site; }))
        refuse(option, "two names mean '" + printable(site->path()) + "'");
      sites.emplace_back(site, ids);
    }
    if (sites.size() == before)
      refuse(option, "'" + printable(name) + "' matches nothing; the embedding is '" + model.embedding().path() + "'");
  }
  if (sites.empty()) refuse(option, "names no token");
  return sites;
}

std::vector<std::pair<std::string, std::string>> tied_keys(const Model& model, const StateDict& file) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto& on_head = model.lm_head().layers();
  if (std::none_of(on_head.begin(), on_head.end(), [](const auto& layer) { return layer->tied_to() != nullptr; }))
    return pairs;
  const auto beginning = [](const Site& site) { return "base_model.model." + site.path() + "."; };
  const std::string own = beginning(model.embedding());
  for (const auto& [key, tensor] : file)
    if (key.starts_with(own) && key.ends_with(kRows))
      pairs.emplace_back(key, beginning(model.lm_head()) + key.substr(own.size()));
  return pairs;
}

StateDict without_tied_keys(const Model& model, StateDict file) {
  for (const auto& [key, repeated] : tied_keys(model, file)) {
    const auto found = file.find(repeated);
    if (found == file.end()) continue;
    if (!at::equal(found->second, file.at(key)))
      throw InputError(printable(repeated) + " differs from " + printable(key) +
                       ", to which this model's head is tied");
    file.erase(found);
  }
  return file;
}

}  // namespace peft

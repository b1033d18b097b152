#include "peft/token_rows.h"

#include <torch/torch.h>

#include <algorithm>
#include <set>

#include "peft/error.h"
#include "peft/init.h"
#include "peft/model/decoder.h"

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
  if (site.touched()) refuse(option, name + "is adapted or trained already, by target_modules or modules_to_save");
}

/// Trained rows in place of some of a weight's. Of an embedding they are looked up, of a linear layer they are outputs.
class TokenRows final : public Layer {
 public:
  TokenRows(const Site& site, const IntList& tokens, const TokenRowsForm& form) {
    const Tensor& weight = site.frozen().weight;
    use(weight, tokens);
    const Tensor start = form.random ? init::normal({where_.size(0), weight.size(1)}, 1, form.rows)
                                     : weight.index_select(0, where_).to(form.rows.dtype());
    Module* holder = this;
    if (!form.holder.empty()) holder = register_module(form.holder, std::make_shared<Module>()).get();
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

  bool fold(Affine& affine) const override {
    const torch::NoGradGuard no_grad;
    affine.weight.index_copy_(0, where_.to(affine.weight.device()), rows_.to(affine.weight.options()));
    return true;
  }

  const Layer* tied_to() const override { return leader_.get(); }

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

std::vector<std::pair<Site*, std::shared_ptr<Layer>>> token_rows(const Model& model,
                                                                 const std::vector<std::pair<Site*, IntList>>& tokens,
                                                                 const TokenRowsForm& form) {
  std::vector<std::pair<Site*, std::shared_ptr<Layer>>> layers;
  const IntList* of_embedding = nullptr;
  for (const auto& [site, ids] : tokens)
    if (site == &model.embedding()) of_embedding = &ids;
  const bool tied = model.config().tie_word_embeddings && of_embedding != nullptr;
  std::shared_ptr<TokenRows> shared;
  bool own_head = false;
  for (const auto& [site, ids] : tokens) {
    if (tied && site == &model.head() && ids == *of_embedding) continue;
    check_site(*site, form.option);
    check_tokens(*site, ids, form.option);
    auto layer = std::make_shared<TokenRows>(*site, ids, form);
    if (site == &model.embedding()) shared = layer;
    own_head = own_head || site == &model.head();
    layers.emplace_back(site, std::move(layer));
  }
  if (!tied || own_head) return layers;
  check_site(model.head(), form.option);
  layers.emplace_back(&model.head(), std::make_shared<TokenRows>(shared));
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

std::vector<std::pair<std::string, std::string>> tied_rows(const Model& model, const State& file) {
  std::vector<std::pair<std::string, std::string>> pairs;
  const auto& on_head = model.head().layers();
  if (std::none_of(on_head.begin(), on_head.end(), [](const auto& layer) { return layer->tied_to() != nullptr; }))
    return pairs;
  const auto beginning = [](const Site& site) { return "base_model.model." + site.path() + "."; };
  const std::string own = beginning(model.embedding());
  for (const auto& [key, tensor] : file)
    if (key.starts_with(own) && key.ends_with(kRows))
      pairs.emplace_back(key, beginning(model.head()) + key.substr(own.size()));
  return pairs;
}

State without_tied_rows(const Model& model, State file) {
  for (const auto& [key, repeated] : tied_rows(model, file)) {
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

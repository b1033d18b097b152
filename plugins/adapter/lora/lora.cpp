// LoRA: Low-Rank Adaptation (Hu et al. 2021, arXiv 2106.09685).
#include <peft/adapters/targeted_adapter.h>
#include <peft/base/error.h>
#include <peft/models/decoder.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "eva.h"
#include "layer.h"
#include "of_data.h"
#include "options.h"

namespace {

class Lora final : public peft::TargetedAdapter {
 public:
  explicit Lora(lora::Options options)
      : TargetedAdapter("LORA", options.targets, options.init != lora::Init::random), options_(std::move(options)) {}
  void calibrate(peft::Model& model, const peft::Calibration& data) override;
  void attach(peft::Model& model, torch::Dtype dtype) override;
  std::vector<peft::ParamGroup> groups(const peft::Model& model) const override;
  void after_backward(const peft::TrainStep&) override;
  peft::StateDict state_dict() const override;
  void load_state_dict(const peft::StateDict& state) override;
  peft::StateDict to_hf(const peft::Model& model) const override;
  peft::StateDict add_derived_tensors(const peft::Model& model, peft::StateDict file) const override;
  void from_hf(const peft::Model& model, const peft::StateDict& file) const override;
  peft::StateDict base_tensors_saved_by_hf(const peft::Model& model) const override;

 protected:
  void prepare(const peft::Model& model, const std::vector<peft::Site*>& sites,
               const at::TensorOptions& tensor_options) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override;
  std::shared_ptr<peft::AdapterLayer> make_embedding_layer(const peft::Embedding& site, std::size_t index,
                                                           const at::TensorOptions& tensor_options) override;
  void write_config(nlohmann::ordered_json& config) const override { lora::write_config(options_, config); }

 private:
  using Sites = std::vector<peft::Site*>;
  struct Share {
    int64_t rank;
    double alpha;
  };
  std::vector<lora::Settings> settings_of(const Sites& sites, const at::TensorOptions& tensor_options) const;
  void redistribute(const Sites& sites, const std::map<const peft::Site*, torch::Tensor>& directions);
  void take_ranks();
  lora::Start start_of(const peft::Linear& site, const lora::Settings& settings);
  /// The layers whose start is of the base, by the beginning of their keys.
  std::map<std::string, lora::LinearLayer*> of_base(const peft::Model& model) const;
  bool names_embedding() const;
  void replicate_layers(peft::Model& model);
  lora::Options options_;
  bool replicated_ = false;
  std::map<std::string, lora::Start> found_;  ///< starts of the data or of a checkpoint, by site
  std::map<std::string, Share> shares_;       ///< EVA's, by site that keeps any rank
  bool left_out_ = false;                     ///< EVA left sites without
  std::vector<lora::Settings> settings_;
  std::map<std::string, std::shared_ptr<lora::LinearLayer>> linears_;  ///< by site
  std::set<const peft::Site*> with_tokens_;                            ///< some of whose rows are trained
};

std::vector<lora::Settings> Lora::settings_of(const Sites& sites, const at::TensorOptions& tensor_options) const {
  const auto ranks = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
  const auto alphas = peft::pattern_values(options_.alpha_pattern, sites, options_.lora_alpha, "alpha_pattern");
  std::vector<lora::Settings> all;
  for (std::size_t i = 0; i < sites.size(); ++i)
    all.push_back({.rank = ranks[i],
                   .scale = options_.scale(ranks[i], alphas[i]),
                   .dropout = options_.lora_dropout,
                   .bias = options_.lora_bias,
                   .frozen_A = options_.use_lorafa,
                   .init = options_.init,
                   .niter = options_.niter,
                   .loftq = options_.loftq,
                   .tensor_options = tensor_options});
  return all;
}

/// Where the data's starts did it already, attach finds the model as it is to be.
void Lora::replicate_layers(peft::Model& model) {
  if (options_.layer_replication.empty() || replicated_) return;
  model.replicate_layers(options_.layer_replication);
  replicated_ = true;
}

void Lora::calibrate(peft::Model& model, const peft::Calibration& data) {
  using lora::Init;
  if (options_.init != Init::eva && options_.init != Init::corda && options_.init != Init::lora_ga) return;
  replicate_layers(model);
  const Sites chosen = peft::select_sites(model, targets());
  const auto all = settings_of(chosen, {});
  Sites sites;
  std::vector<lora::Settings> settings;
  std::vector<int64_t> ranks;
  for (std::size_t i = 0; i < chosen.size(); ++i) {
    if (dynamic_cast<const peft::Linear*>(chosen[i]) == nullptr) continue;
    if (chosen[i] == &model.lm_head())
      throw peft::ConfigError("[adapter] init_lora_weights: '" + chosen[i]->path() +
                              "' sees only the tokens that are learned; take a start that is not of the data");
    sites.push_back(chosen[i]), settings.push_back(all[i]), ranks.push_back(all[i].rank);
  }
  if (options_.init == Init::eva) {
    const auto directions = lora::eva_directions(sites, ranks, options_.eva, options_.calibration_batches, data);
    std::map<const peft::Site*, torch::Tensor> of_site;
    for (std::size_t i = 0; i < sites.size(); ++i) of_site.emplace(sites[i], directions[i]);
    return redistribute(chosen, of_site);
  }
  const auto initial_factors =
      options_.init == Init::corda
          ? corda_starts(sites, settings, options_.corda, options_.calibration_batches, data)
          : lora_ga_starts(sites, settings, options_.lora_ga, options_.calibration_batches, data);
  for (std::size_t i = 0; i < sites.size(); ++i) found_.emplace(sites[i]->path(), initial_factors[i]);
}

/// Takes over EVA's directions, and as many ranks: sites without any are no longer targets.
void Lora::redistribute(const Sites& sites, const std::map<const peft::Site*, torch::Tensor>& directions) {
  const auto ranks = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
  const auto alphas = peft::pattern_values(options_.alpha_pattern, sites, options_.lora_alpha, "alpha_pattern");
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const std::string& path = sites[i]->path();
    const auto found = directions.find(sites[i]);
    const int64_t rank = found == directions.end() ? ranks[i] : found->second.size(0);
    left_out_ = left_out_ || rank == 0;
    if (rank == 0) continue;
    double alpha = alphas[i];
    if (options_.eva.adjust_scaling_factors && rank != ranks[i])
      alpha *= static_cast<double>(rank) / static_cast<double>(ranks[i]);
    shares_[path] = {rank, alpha};
    if (found == directions.end()) continue;
    const int64_t out = sites[i]->frozen().weight.size(0);
    found_[path] = {found->second, torch::zeros({out, rank}, found->second.options())};
  }
  take_ranks();
}

/// Makes options of the shares.
void Lora::take_ranks() {
  options_.rank_pattern.clear(), options_.alpha_pattern.clear();
  peft::StringList left;
  for (const auto& [path, share] : shares_) {
    left.push_back(path);
    if (share.rank != options_.r) options_.rank_pattern[path] = share.rank;
    if (share.alpha != options_.lora_alpha) options_.alpha_pattern[path] = share.alpha;
  }
  if (left_out_) options_.targets.target_modules = left;
  set_targets(options_.targets);
}

void Lora::prepare(const peft::Model&, const Sites& sites, const at::TensorOptions& tensor_options) {
  settings_ = settings_of(sites, tensor_options);
}

std::shared_ptr<peft::AdapterLayer> Lora::make_layer(const peft::Linear& site, std::size_t index,
                                                     const at::TensorOptions&) {
  const lora::Settings& settings = settings_[index];
  const lora::Start start = start_of(site, settings);
  const auto layer = options_.use_dora ? std::make_shared<lora::DoraLayer>(site, settings, start)
                                       : std::make_shared<lora::LinearLayer>(site, settings, start);
  linears_[site.path()] = layer;
  return layer;
}

lora::Start Lora::start_of(const peft::Linear& site, const lora::Settings& settings) {
  const auto found = found_.extract(site.path());
  if (!found && (options_.init == lora::Init::corda || options_.init == lora::Init::lora_ga))
    throw peft::ConfigError("[adapter] init_lora_weights: " + peft::config_value(options_.init_lora_weights).dump() +
                            " begins with a changed base that only the data tells; of a saved adapter take the one "
                            "that was converted to \"init_lora_weights\": true");
  if (!found) return lora::make_start(site, settings);
  const lora::Start& start = found.mapped();
  if (start.A.sizes() != at::IntArrayRef{settings.rank, site.in_features()} ||
      start.B.sizes() != at::IntArrayRef{site.out_features(), settings.rank})
    throw peft::InputError("lora: the saved start of '" + peft::printable(site.path()) + "' is not of this experiment");
  return start;
}

constexpr const char *kA = "start_A:", *kB = "start_B:", *kShare = "share:", *kLeftOut = "left_out";

/// Starts that are taken out of the base, and how EVA shared out the ranks.
peft::StateDict Lora::state_dict() const {
  peft::StateDict state;
  for (const auto& [path, layer] : linears_) {
    if (!layer->starts_of_base()) continue;
    const lora::Start start = layer->start();
    state[kA + path] = start.A, state[kB + path] = start.B;
  }
  for (const auto& [path, share] : shares_)
    state[kShare + path] = torch::tensor({static_cast<double>(share.rank), share.alpha}, torch::kDouble);
  if (left_out_) state[kLeftOut] = torch::tensor(true);
  return state;
}

void Lora::load_state_dict(const peft::StateDict& state) {
  for (const auto& [name, tensor] : state) {
    const auto path = [&](const char* beginning) { return name.substr(std::string(beginning).size()); };
    const auto B = name.starts_with(kA) ? state.find(kB + path(kA)) : state.end();
    if (B != state.end())
      found_[path(kA)] = {tensor, B->second, /*of_base=*/true};
    else if (name.starts_with(kShare) && tensor.sizes() == at::IntArrayRef{2} && tensor[0].item<double>() >= 1)
      shares_[path(kShare)] = {static_cast<int64_t>(tensor[0].item<double>()), tensor[1].item<double>()};
    else if (name == kLeftOut)
      left_out_ = true;
    else if (!name.starts_with(kB) || !state.contains(kA + path(kB)))
      throw peft::InputError("lora: the saved state holds '" + peft::printable(name) +
                             "', which is not of this method");
  }
  if (!shares_.empty()) take_ranks();
}

std::shared_ptr<peft::AdapterLayer> Lora::make_embedding_layer(const peft::Embedding& site, std::size_t index,
                                                               const at::TensorOptions&) {
  for (const auto& [on, option] :
       {std::pair(options_.lora_bias, "lora_bias"), std::pair(options_.use_dora, "use_dora"),
        std::pair(options_.use_lorafa, "use_lorafa"), std::pair(options_.takes_from_base(), "init_lora_weights")})
    if (on)
      throw peft::ConfigError(std::string("[adapter] ") + option + ": '" + site.path() +
                              "' is an embedding, which has no place for it");
  return std::make_shared<lora::EmbeddingLayer>(site, settings_[index]);
}

void Lora::attach(peft::Model& model, torch::Dtype dtype) {
  replicate_layers(model);
  TargetedAdapter::attach(model, dtype);
  const peft::MemoryScope scope(peft::MemoryComponent::adapter);
  for (peft::Site* site : model.sites())
    if (site->frozen().bias.defined() &&
        (options_.bias == "all" || (options_.bias == "lora_only" && !layers_on(*site).empty())))
      make_trainable(*site, "bias", dtype);
  if (!options_.trainable_token_indices) return;
  const std::string option = "trainable_token_indices";
  const peft::TokenLayerOptions tensor_options{option, "token_adapter", false,
                                               at::TensorOptions().dtype(dtype).device(model.device())};
  for (auto& [site, layer] : peft::make_token_layers(
           model, peft::token_sites(model, *options_.trainable_token_indices, option), tensor_options)) {
    add_layer(*site, "tokens", std::move(layer));
    with_tokens_.insert(site);
  }
}

void Lora::after_backward(const peft::TrainStep&) {
  if (!options_.use_lorafa) return;
  for (const auto& [path, layer] : linears_) layer->correct_gradient();
}

std::map<std::string, lora::LinearLayer*> Lora::of_base(const peft::Model& model) const {
  std::map<std::string, lora::LinearLayer*> all;
  for (const peft::Site* site : model.sites())
    for (const auto& layer : layers_on(*site))
      if (auto* linear = dynamic_cast<lora::LinearLayer*>(layer.get()); linear != nullptr && linear->starts_of_base())
        all.emplace("base_model.model." + site->path() + ".lora_", linear);
  return all;
}

/// Where the start is of the base, an update to the base as it was loaded: PEFT's conversion to an ordinary LoRA.
peft::StateDict Lora::to_hf(const peft::Model& model) const {
  const torch::NoGradGuard no_grad;
  peft::StateDict state = TargetedAdapter::to_hf(model);
  for (const auto& [key, layer] : of_base(model)) {
    const peft::LowRank update = layer->factors();
    state.insert_or_assign(key + "A.weight", update.A);
    state.insert_or_assign(key + "B.weight", update.B);
  }
  return state;
}

/// A file of PEFT's that was not converted holds A and B alone: their start is computed anew, as PEFT does, where that
/// gives the same one again.
peft::StateDict Lora::add_derived_tensors(const peft::Model& model, peft::StateDict file) const {
  peft::StateDict state = peft::without_tied_keys(model, std::move(file));
  const bool again = options_.init == lora::Init::olora || (options_.init == lora::Init::pissa && options_.niter == 0);
  for (const auto& [key, layer] : of_base(model)) {
    if (!again) break;
    const auto A = state.find(key + "A.weight"), B = state.find(key + "B.weight");
    if (A == state.end() || B == state.end()) continue;
    const peft::LowRank own = layer->factors();
    const int64_t r = own.A.size(0) / 2;
    if (A->second.dim() != 2 || A->second.size(0) != r || B->second.dim() != 2 || B->second.size(1) != r) continue;
    A->second = at::cat({A->second, own.A.detach().narrow(0, r, r).cpu()}, 0);
    B->second = at::cat({B->second, own.B.detach().narrow(1, r, r).cpu()}, 1);
  }
  return state;
}

void Lora::from_hf(const peft::Model& model, const peft::StateDict& state) const {
  Adapter::from_hf(model, state);  // all but these, whose tensors in to_hf are copies
  for (const auto& [key, layer] : of_base(model)) layer->take(state.at(key + "A.weight"), state.at(key + "B.weight"));
}

/// LoRA+ (Hayou et al. 2024): B, and what has one dimension, learn faster than A.
std::vector<peft::ParamGroup> Lora::groups(const peft::Model& model) const {
  std::vector<peft::ParamGroup> all = Adapter::groups(model);
  if (!options_.loraplus_lr_ratio) return all;
  peft::ParamGroup slow = all.front(), fast, embeddings;
  slow.parameters.clear();
  fast.name = "adapter B", fast.lr_scale = *options_.loraplus_lr_ratio;
  embeddings.name = "adapter embeddings", embeddings.initial_lr = options_.loraplus_lr_embedding;
  for (const auto& item : all.front().parameters) {
    const bool embedded = item.first.find("lora_embedding") != std::string::npos;
    const bool quick = item.first.find("lora_B") != std::string::npos || item.second.dim() == 1;
    (embedded ? embeddings : quick ? fast : slow).parameters.push_back(item);
  }
  all = {slow, fast, embeddings};
  std::erase_if(all, [](const peft::ParamGroup& group) { return group.parameters.empty(); });
  return all;
}

/// PEFT looks for these two words in the list, or for a regex that matches either.
bool Lora::names_embedding() const {
  const auto* list = std::get_if<peft::StringList>(&options_.targets.target_modules);
  if (list == nullptr) return true;
  return std::any_of(list->begin(), list->end(),
                     [](const std::string& name) { return name == "embed_tokens" || name == "lm_head"; });
}

/// An adapted embedding or head is saved along, but where tokens are trained: then PEFT leaves it to the base's folder.
peft::StateDict Lora::base_tensors_saved_by_hf(const peft::Model& model) const {
  peft::StateDict state = TargetedAdapter::base_tensors_saved_by_hf(model);
  const bool saves_adapted = names_embedding() && !options_.trainable_token_indices;
  for (const peft::Site* site : std::initializer_list<const peft::Site*>{&model.embedding(), &model.lm_head()}) {
    const std::string base = "base_model.model." + site->path() + ".";
    if (auto found = state.extract(base + "base_layer.weight"); !found.empty()) {
      if (with_tokens_.contains(site)) found.key() = base + "token_adapter.base_layer.weight";
      state.insert(std::move(found));
    }
    if (!saves_adapted || layers_on(*site).empty()) continue;
    state.emplace(base + "base_layer.weight", site->frozen().weight);
    if (site->frozen().bias.defined() && !trainable_copies(*site).contains("bias"))
      state.emplace(base + "base_layer.bias", site->frozen().bias);
  }
  return state;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Lora>(lora::read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("lora", make); }

}  // namespace

PEFT_PLUGIN("lora", "1.0.0", add)

// LoRA: Low-Rank Adaptation (Hu et al. 2021, arXiv 2106.09685).
#include <peft/adapters/targeted_adapter.h>
#include <peft/adapters/training_hooks.h>
#include <peft/base/error.h>
#include <peft/models/model.h>
#include <peft/plugin.h>
#include <peft/runtime/memory.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "data_driven_init.h"
#include "eva.h"
#include "layer.h"
#include "options.h"

namespace {

constexpr const char *kWeightA = "lora_A.weight", *kWeightB = "lora_B.weight";

class Lora final : public peft::TargetedAdapter, public peft::TrainingHooks, public peft::Calibrated {
 public:
  explicit Lora(lora::Options options)
      : TargetedAdapter("LORA", options.targets, options.init != lora::Init::random), options_(std::move(options)) {}
  peft::TrainingHooks* training_hooks() noexcept override { return this; }
  peft::Calibrated* calibrated() noexcept override { return this; }

 protected:
  void do_calibrate(peft::Model& model, const peft::Calibration& data) override;
  void do_attach(peft::Model& model, torch::Dtype dtype) override;
  std::vector<peft::ParamGroup> do_groups(const peft::Model& model) const override;
  void do_after_backward(const peft::TrainStep&) override;
  peft::StateDict do_state_dict() const override;
  void do_load_state_dict(const peft::StateDict& state) override;
  peft::StateDict do_to_hf(const peft::Model& model) const override;
  peft::StateDict do_add_derived_tensors(const peft::Model& model, peft::StateDict file) const override;
  void do_from_hf(const peft::Model& model, const peft::StateDict& file) const override;
  peft::StateDict do_base_tensors(const peft::Model& model) const override;
  void prepare(const peft::Model& model, const std::vector<peft::Site*>& sites,
               const at::TensorOptions& tensor_options) override;
  std::shared_ptr<peft::AdapterLayer> make_layer(const peft::Linear& site, std::size_t index,
                                                 const at::TensorOptions& tensor_options) override;
  std::shared_ptr<peft::AdapterLayer> make_embedding_layer(const peft::Embedding& site, std::size_t index,
                                                           const at::TensorOptions& tensor_options) override;
  void write_config(nlohmann::ordered_json& config) const override { lora::write_config(options_, config); }

 private:
  using Sites = std::vector<peft::Site*>;
  struct RankShare {
    int64_t rank;
    double alpha;
  };
  std::vector<lora::Settings> settings_of(const Sites& sites, const at::TensorOptions& tensor_options) const;
  void set_eva_directions(const Sites& sites, const std::map<const peft::Site*, torch::Tensor>& directions);
  void apply_rank_shares();
  lora::Initialization initialization(const peft::Linear& site, const lora::Settings& settings);
  /// The layers with a residual initialization, with their sites.
  std::vector<std::pair<const peft::Site*, lora::LinearLayer*>> residual_layers(const peft::Model& model) const;
  bool targets_embedding() const;
  void replicate_layers(peft::Model& model);
  void use_saved_factors();
  /// How a head is adapted that is tied to the embedding, with ensure_weight_tying.
  enum class TiedHead { none, update, trained };
  TiedHead prepare_tied_head(const peft::Model& model);
  void tie_head(peft::Model& model);
  void check_tied_tokens(const peft::Model& model,
                         const std::vector<std::pair<peft::Site*, peft::IntList>>& tokens) const;
  /// Pairs of keys, of the head's tensor and the embedding's, and whether one is the other's transpose.
  struct TiedKeys {
    std::string head, embedding;
    bool transposed;
  };
  std::vector<TiedKeys> tied_head_keys(const peft::Model& model) const;
  TiedHead tied_head_ = TiedHead::none;
  lora::Options options_;
  bool replicated_ = false;
  std::map<std::string, lora::Initialization> known_init_;  ///< from calibration or a checkpoint, by site path
  std::map<std::string, RankShare> rank_shares_;            ///< EVA's, by path of the sites with a rank above 0
  bool has_rank_0_ = false;                                 ///< EVA gave some sites rank 0
  std::vector<lora::Settings> settings_;                    ///< by index of the target site
  std::map<std::string, std::shared_ptr<lora::LinearLayer>> linears_;  ///< by site path
  std::set<const peft::Site*> sites_with_trained_tokens_;
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

/// Called by calibrate and attach; does nothing the second time.
void Lora::replicate_layers(peft::Model& model) {
  if (options_.layer_replication.empty() || replicated_) return;
  model.replicate_layers(options_.layer_replication);
  replicated_ = true;
}

void Lora::do_calibrate(peft::Model& model, const peft::Calibration& data) {
  using lora::Init;
  if (options_.init != Init::eva && options_.init != Init::corda && options_.init != Init::lora_ga) return;
  replicate_layers(model);
  const Sites selected = peft::select_sites(model, targets());
  const auto all = settings_of(selected, {});
  Sites sites;
  std::vector<lora::Settings> settings;
  std::vector<int64_t> ranks;
  for (std::size_t i = 0; i < selected.size(); ++i) {
    if (dynamic_cast<const peft::Linear*>(selected[i]) == nullptr) continue;
    if (selected[i] == model.output_embedding())
      throw peft::ConfigError("[adapter] init_lora_weights: '" + selected[i]->path() +
                              "' has inputs only for target tokens; use an initialization that needs no data");
    sites.push_back(selected[i]);
    settings.push_back(all[i]);
    ranks.push_back(all[i].rank);
  }
  if (options_.init == Init::eva) {
    const auto directions = lora::eva_directions(sites, ranks, options_.eva, options_.calibration_batches, data);
    std::map<const peft::Site*, torch::Tensor> by_site;
    for (std::size_t i = 0; i < sites.size(); ++i) by_site.emplace(sites[i], directions[i]);
    return set_eva_directions(selected, by_site);
  }
  const auto initializations =
      options_.init == Init::corda
          ? corda_init(sites, settings, options_.corda, options_.calibration_batches, data)
          : lora_ga_init(sites, settings, options_.lora_ga, options_.calibration_batches, data);
  for (std::size_t i = 0; i < sites.size(); ++i) known_init_.emplace(sites[i]->path(), initializations[i]);
}

/// Uses EVA's directions and their numbers as ranks; a site with rank 0 is no longer a target.
void Lora::set_eva_directions(const Sites& sites, const std::map<const peft::Site*, torch::Tensor>& directions) {
  const auto ranks = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
  const auto alphas = peft::pattern_values(options_.alpha_pattern, sites, options_.lora_alpha, "alpha_pattern");
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const std::string& path = sites[i]->path();
    const auto found = directions.find(sites[i]);
    const int64_t rank = found == directions.end() ? ranks[i] : found->second.size(0);
    has_rank_0_ = has_rank_0_ || rank == 0;
    if (rank == 0) continue;
    double alpha = alphas[i];
    if (options_.eva.adjust_scaling_factors && rank != ranks[i])
      alpha *= static_cast<double>(rank) / static_cast<double>(ranks[i]);
    rank_shares_[path] = {rank, alpha};
    if (found == directions.end()) continue;
    const int64_t out = sites[i]->weight_sizes()[0];
    known_init_[path] = {found->second, torch::zeros({out, rank}, found->second.options())};
  }
  apply_rank_shares();
}

/// Writes the ranks that EVA chose into the options.
void Lora::apply_rank_shares() {
  options_.rank_pattern.clear();
  options_.alpha_pattern.clear();
  peft::StringList paths;
  for (const auto& [path, share] : rank_shares_) {
    paths.push_back(path);
    if (share.rank != options_.r) options_.rank_pattern[path] = share.rank;
    if (share.alpha != options_.lora_alpha) options_.alpha_pattern[path] = share.alpha;
  }
  if (has_rank_0_) options_.targets.target_modules = paths;
  set_targets(options_.targets);
}

/// With an update that a tied head shares, the last settings are the head's.
void Lora::prepare(const peft::Model& model, const Sites& sites, const at::TensorOptions& tensor_options) {
  Sites all = sites;
  if (tied_head_ == TiedHead::update) all.push_back(model.output_embedding());
  settings_ = settings_of(all, tensor_options);
}

std::shared_ptr<peft::AdapterLayer> Lora::make_layer(const peft::Linear& site, std::size_t index,
                                                     const at::TensorOptions&) {
  const lora::Settings& settings = settings_[index];
  const lora::Initialization init = initialization(site, settings);
  const auto layer = options_.use_dora ? std::make_shared<lora::DoraLayer>(site, settings, init)
                                       : std::make_shared<lora::LinearLayer>(site, settings, init);
  linears_[site.path()] = layer;
  return layer;
}

lora::Initialization Lora::initialization(const peft::Linear& site, const lora::Settings& settings) {
  const auto found = known_init_.extract(site.path());
  if (!found && (options_.init == lora::Init::corda || options_.init == lora::Init::lora_ga))
    throw peft::ConfigError("[adapter] init_lora_weights: " + peft::config_value(options_.init_lora_weights).dump() +
                            " needs data: call Calibrated::calibrate before attach");
  if (!found) return lora::make_initialization(site, settings);
  const lora::Initialization& init = found.mapped();
  if (init.A.sizes() != at::IntArrayRef{settings.rank, site.in_features()} ||
      init.B.sizes() != at::IntArrayRef{site.out_features(), settings.rank})
    throw peft::InputError("lora: the saved initialization of '" + peft::printable(site.path()) +
                           "' does not have the shapes of this experiment");
  return init;
}

constexpr const char *kA = "start_A:", *kB = "start_B:", *kRankShare = "share:", *kHasRank0 = "left_out";

/// Residual initializations, and the ranks that EVA chose.
peft::StateDict Lora::do_state_dict() const {
  peft::StateDict state;
  for (const auto& [path, layer] : linears_) {
    if (!layer->has_residual_init()) continue;
    const lora::Initialization init = layer->residual_init();
    state[kA + path] = init.A;
    state[kB + path] = init.B;
  }
  for (const auto& [path, share] : rank_shares_)
    state[kRankShare + path] = torch::tensor({static_cast<double>(share.rank), share.alpha}, torch::kDouble);
  if (has_rank_0_) state[kHasRank0] = torch::tensor(true);
  return state;
}

void Lora::do_load_state_dict(const peft::StateDict& state) {
  for (const auto& [name, tensor] : state) {
    const auto path = [&](const std::string& prefix) { return name.substr(prefix.size()); };
    const auto B = name.starts_with(kA) ? state.find(kB + path(kA)) : state.end();
    if (B != state.end())
      known_init_[path(kA)] = {tensor, B->second, /*subtracts_from_base=*/true};
    else if (name.starts_with(kRankShare) && tensor.sizes() == at::IntArrayRef{2} && tensor[0].item<double>() >= 1)
      rank_shares_[path(kRankShare)] = {static_cast<int64_t>(tensor[0].item<double>()), tensor[1].item<double>()};
    else if (name == kHasRank0)
      has_rank_0_ = true;
    else if (!name.starts_with(kB) || !state.contains(kA + path(kB)))
      throw peft::InputError("lora: the saved state has '" + peft::printable(name) +
                             "', which this method does not have");
  }
  if (!rank_shares_.empty()) apply_rank_shares();
}

std::shared_ptr<peft::AdapterLayer> Lora::make_embedding_layer(const peft::Embedding& site, std::size_t index,
                                                               const at::TensorOptions&) {
  for (const auto& [on, option] :
       {std::pair(options_.lora_bias, "lora_bias"), std::pair(options_.use_dora, "use_dora"),
        std::pair(options_.use_lorafa, "use_lorafa"), std::pair(options_.has_residual_init(), "init_lora_weights")})
    if (on)
      throw peft::ConfigError(std::string("[adapter] ") + option + ": '" + site.path() +
                              "' is an embedding, which does not support it");
  return std::make_shared<lora::EmbeddingLayer>(site, settings_[index], tied_head_ == TiedHead::update);
}

/// The factors of a finished adapter are in its file. One that starts from data or random numbers and was saved without
/// the conversion to an ordinary LoRA belongs to the base that was saved with it, and is an ordinary LoRA of that base.
void Lora::use_saved_factors() {
  using lora::Init;
  const bool unknown = options_.init == Init::corda || options_.init == Init::lora_ga || options_.init == Init::loftq ||
                       (options_.init == Init::pissa && options_.niter > 0);
  if (!will_be_loaded() || !known_init_.empty() || !unknown) return;
  options_.init = Init::uniform;
  options_.init_lora_weights = true;
}

namespace {

bool contains(const std::vector<peft::Site*>& sites, const peft::Site* site) {
  return std::find(sites.begin(), sites.end(), site) != sites.end();
}

/// `names` with the embedding and without the names that select the head.
peft::StringList with_embedding_for_head(peft::StringList names, const peft::Model& model) {
  const std::string &head = model.output_embedding()->path(), &embedding = model.embedding().path();
  std::erase_if(names, [&](const std::string& name) { return head == name || head.ends_with("." + name); });
  if (std::find(names.begin(), names.end(), embedding) == names.end()) names.push_back(embedding);
  return names;
}

}  // namespace

/// HF PEFT's _check_tied_modules: whatever names embedding or head selects the embedding, which the head follows.
Lora::TiedHead Lora::prepare_tied_head(const peft::Model& model) {
  const peft::Site *embedding = &model.embedding(), *head = model.output_embedding();
  if (!options_.ensure_weight_tying || head == nullptr || !model.config().tie_word_embeddings) return TiedHead::none;
  peft::Targets targets = this->targets();
  const auto names_either = [&](const Sites& sites) { return contains(sites, embedding) || contains(sites, head); };
  if (names_either(peft::sites_to_save(model, targets))) {
    targets.modules_to_save = with_embedding_for_head(*targets.modules_to_save, model);
    set_targets(std::move(targets));
    return TiedHead::trained;
  }
  const Sites selected = peft::select_sites(model, targets);
  if (!names_either(selected)) return TiedHead::none;
  if (const auto* names = std::get_if<peft::StringList>(&targets.target_modules)) {
    targets.target_modules = with_embedding_for_head(*names, model);
  } else {
    peft::StringList paths;
    for (const peft::Site* site : selected) paths.push_back(site->path());
    targets.target_modules = with_embedding_for_head(std::move(paths), model);
  }
  set_targets(std::move(targets));
  const bool drawn = options_.init == lora::Init::uniform || options_.init == lora::Init::gaussian ||
                     options_.init == lora::Init::random;
  if (!drawn && !will_be_loaded())
    throw peft::ConfigError("[adapter] ensure_weight_tying: needs init_lora_weights to be true, false or \"gaussian\"");
  return TiedHead::update;
}

void Lora::tie_head(peft::Model& model) {
  peft::Site& head = *model.output_embedding();
  if (tied_head_ == TiedHead::trained) return head.tie_weight_to(model.embedding());
  const auto layers = layers_on(model.embedding());
  const auto embedding = std::dynamic_pointer_cast<lora::EmbeddingLayer>(layers.front());
  add_layer(head, "lora", std::make_shared<lora::TiedHeadLayer>(embedding, settings_.back()));
}

void Lora::check_tied_tokens(const peft::Model& model,
                             const std::vector<std::pair<peft::Site*, peft::IntList>>& tokens) const {
  if (!options_.ensure_weight_tying || !model.config().tie_word_embeddings) return;
  const peft::IntList* first = nullptr;
  for (const auto& [site, ids] : tokens) {
    if (site != &model.embedding() && site != model.output_embedding()) continue;
    if (first != nullptr && *first != ids)
      throw peft::ConfigError(
          "[adapter] ensure_weight_tying: trainable_token_indices lists other tokens for the head than for the "
          "embedding; list the same ones");
    first = &ids;
  }
}

std::vector<Lora::TiedKeys> Lora::tied_head_keys(const peft::Model& model) const {
  if (tied_head_ == TiedHead::none) return {};
  const peft::Site &head = *model.output_embedding(), &embedding = model.embedding();
  if (tied_head_ == TiedHead::trained)
    return {{peft::hf_key(head, "weight"), peft::hf_key(embedding, "weight"), false}};
  return {{peft::hf_key(head, kWeightA), peft::hf_key(embedding, "lora_embedding_B"), true},
          {peft::hf_key(head, kWeightB), peft::hf_key(embedding, "lora_embedding_A"), true}};
}

void Lora::do_attach(peft::Model& model, torch::Dtype dtype) {
  replicate_layers(model);
  use_saved_factors();
  tied_head_ = prepare_tied_head(model);
  TargetedAdapter::do_attach(model, dtype);
  const peft::MemoryScope scope(peft::MemoryComponent::adapter);
  if (tied_head_ != TiedHead::none) tie_head(model);
  for (peft::Site* site : model.sites())
    if (site->base_bias().defined() &&
        (options_.bias == "all" || (options_.bias == "lora_only" && !layers_on(*site).empty())))
      make_trainable(*site, "bias", dtype);
  if (!options_.trainable_token_indices) return;
  const std::string option = "trainable_token_indices";
  const peft::TokenLayerOptions layer_options{option, "token_adapter", false,
                                              at::TensorOptions().dtype(dtype).device(model.device())};
  const auto tokens = peft::token_sites(model, *options_.trainable_token_indices, option);
  check_tied_tokens(model, tokens);
  for (auto& [site, layer] : peft::make_token_layers(model, tokens, layer_options)) {
    add_layer(*site, "tokens", std::move(layer));
    sites_with_trained_tokens_.insert(site);
  }
}

void Lora::do_after_backward(const peft::TrainStep&) {
  if (!options_.use_lorafa) return;
  for (const auto& [path, layer] : linears_) layer->correct_gradient();
}

std::vector<std::pair<const peft::Site*, lora::LinearLayer*>> Lora::residual_layers(const peft::Model& model) const {
  std::vector<std::pair<const peft::Site*, lora::LinearLayer*>> all;
  for (const peft::Site* site : model.sites())
    if (const auto found = linears_.find(site->path()); found != linears_.end() && found->second->has_residual_init())
      all.emplace_back(site, found->second.get());
  return all;
}

/// A residual initialization is saved as an update of the loaded base: HF PEFT's conversion to an ordinary LoRA. What a
/// tied head shares with the embedding is saved for both, as HF PEFT does.
peft::StateDict Lora::do_to_hf(const peft::Model& model) const {
  const torch::NoGradGuard no_grad;
  peft::StateDict state = TargetedAdapter::do_to_hf(model);
  for (const auto& [site, layer] : residual_layers(model)) {
    const peft::LowRank update = layer->factors();
    state.insert_or_assign(peft::hf_key(*site, kWeightA), update.A);
    state.insert_or_assign(peft::hf_key(*site, kWeightB), update.B);
  }
  for (const auto& [head, embedding, transposed] : tied_head_keys(model)) {
    const torch::Tensor& tensor = state.at(embedding);
    state.insert_or_assign(head, transposed ? tensor.t() : tensor);
  }
  return state;
}

/// HF PEFT's file without conversion has only A and B: the initial factors are recomputed, as in HF PEFT, if that is
/// deterministic.
peft::StateDict Lora::do_add_derived_tensors(const peft::Model& model, peft::StateDict file) const {
  peft::StateDict state = peft::without_tied_keys(model, std::move(file));
  for (const auto& [head, embedding, transposed] : tied_head_keys(model)) {
    const auto source = state.find(embedding);
    if (source == state.end() || (transposed && source->second.dim() != 2)) continue;
    const torch::Tensor tied = transposed ? source->second.t().contiguous() : source->second;
    const auto [found, added] = state.emplace(head, tied);
    if (!added && !at::equal(found->second, tied))
      throw peft::InputError(peft::printable(head) + " differs from " + peft::printable(embedding) +
                             ", to which ensure_weight_tying ties it");
  }
  const bool deterministic =
      options_.init == lora::Init::olora || (options_.init == lora::Init::pissa && options_.niter == 0);
  if (!deterministic) return state;
  for (const auto& [site, layer] : residual_layers(model)) {
    const auto A = state.find(peft::hf_key(*site, kWeightA)), B = state.find(peft::hf_key(*site, kWeightB));
    if (A == state.end() || B == state.end()) continue;
    const peft::LowRank update = layer->factors();
    const int64_t r = update.A.size(0) / 2;
    if (A->second.dim() != 2 || A->second.size(0) != r || B->second.dim() != 2 || B->second.size(1) != r) continue;
    A->second = at::cat({A->second, update.A.detach().narrow(0, r, r).cpu()}, 0);
    B->second = at::cat({B->second, update.B.detach().narrow(1, r, r).cpu()}, 1);
  }
  return state;
}

void Lora::do_from_hf(const peft::Model& model, const peft::StateDict& file) const {
  TargetedAdapter::do_from_hf(model, file);
  for (const auto& [site, layer] : residual_layers(model))  // whose tensors in to_hf are copies
    layer->set_factors(file.at(peft::hf_key(*site, kWeightA)), file.at(peft::hf_key(*site, kWeightB)));
}

/// LoRA+ (Hayou et al. 2024): B and one-dimensional parameters have a higher learning rate than A.
std::vector<peft::ParamGroup> Lora::do_groups(const peft::Model& model) const {
  std::vector<peft::ParamGroup> all = Adapter::do_groups(model);
  if (!options_.loraplus_lr_ratio) return all;
  peft::ParamGroup slow = all.front(), fast, embeddings;
  slow.parameters.clear();
  fast.name = "adapter B";
  fast.lr_scale = *options_.loraplus_lr_ratio;
  embeddings.name = "adapter embeddings";
  embeddings.initial_lr = options_.loraplus_lr_embedding;
  for (const auto& item : all.front().parameters) {
    const bool is_embedding = item.first.find("lora_embedding") != std::string::npos;
    const bool is_fast = item.first.find("lora_B") != std::string::npos || item.second.dim() == 1;
    (is_embedding ? embeddings : is_fast ? fast : slow).parameters.push_back(item);
  }
  all = {slow, fast, embeddings};
  std::erase_if(all, [](const peft::ParamGroup& group) { return group.parameters.empty(); });
  return all;
}

/// HF PEFT looks for these two words in the list, or for a regex that matches either.
bool Lora::targets_embedding() const {
  const auto* list = std::get_if<peft::StringList>(&options_.targets.target_modules);
  if (list == nullptr) return true;
  return std::any_of(list->begin(), list->end(),
                     [](const std::string& name) { return name == "embed_tokens" || name == "lm_head"; });
}

/// HF PEFT also saves an adapted embedding or head, except if single tokens train.
peft::StateDict Lora::do_base_tensors(const peft::Model& model) const {
  peft::StateDict state = TargetedAdapter::do_base_tensors(model);
  const bool saves_adapted = targets_embedding() && !options_.trainable_token_indices;
  for (const peft::Site* site :
       std::initializer_list<const peft::Site*>{&model.embedding(), model.output_embedding()}) {
    if (site == nullptr) continue;
    if (auto found = state.extract(peft::hf_key(*site, "base_layer.weight")); !found.empty()) {
      if (sites_with_trained_tokens_.contains(site))
        found.key() = peft::hf_key(*site, "token_adapter.base_layer.weight");
      state.insert(std::move(found));
    }
    if (!saves_adapted || layers_on(*site).empty()) continue;
    state.emplace(peft::hf_key(*site, "base_layer.weight"), site->dense());
    if (site->base_bias().defined() && !trainable_copies(*site).contains("bias"))
      state.emplace(peft::hf_key(*site, "base_layer.bias"), site->base_bias());
  }
  return state;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Lora>(lora::read(in)); }

void add(peft::Registry& registry) { registry.add<peft::Adapter>("lora", make); }

}  // namespace

PEFT_PLUGIN("lora", "1.0.0", add)

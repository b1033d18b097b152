// LoRA: Low-Rank Adaptation (Hu et al. 2021, arXiv 2106.09685).
#include <peft/memory.h>
#include <peft/model/decoder.h>
#include <peft/plugin.h>
#include <peft/targeted_adapter.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "layer.h"
#include "options.h"

namespace {

class Lora final : public peft::TargetedAdapter {
 public:
  explicit Lora(lora::Options options) : TargetedAdapter("LORA", options.targets), options_(std::move(options)) {}
  void attach(peft::Model& model, torch::Dtype dtype) override;
  bool starts_as_base() const override { return options_.init_lora_weights != peft::BoolOrString(false); }
  std::vector<peft::ParamGroup> groups(const peft::Model& model) const override;
  peft::State hf_base_state(const peft::Model& model) const override;

 protected:
  void prepare(const peft::Model& model, const std::vector<peft::Site*>& sites, const at::TensorOptions& form) override;
  std::shared_ptr<peft::Layer> make_layer(const peft::Linear& site, std::size_t index,
                                          const at::TensorOptions& form) override;
  std::shared_ptr<peft::Layer> make_embedding_layer(const peft::Embedding& site, std::size_t index,
                                                    const at::TensorOptions& form) override;
  void write_config(nlohmann::ordered_json& config) const override { lora::write_config(options_, config); }

 private:
  bool names_embedding() const;
  lora::Options options_;
  std::vector<lora::Settings> settings_;
};

void Lora::prepare(const peft::Model&, const std::vector<peft::Site*>& sites, const at::TensorOptions& form) {
  const auto ranks = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
  const auto alphas = peft::pattern_values(options_.alpha_pattern, sites, options_.lora_alpha, "alpha_pattern");
  for (std::size_t i = 0; i < sites.size(); ++i)
    settings_.push_back({.rank = ranks[i],
                         .scale = options_.scale(ranks[i], alphas[i]),
                         .dropout = options_.lora_dropout,
                         .bias = options_.lora_bias,
                         .init = options_.init_lora_weights,
                         .form = form});
}

std::shared_ptr<peft::Layer> Lora::make_layer(const peft::Linear& site, std::size_t index, const at::TensorOptions&) {
  if (options_.use_dora) return std::make_shared<lora::DoraLayer>(site, settings_[index]);
  return std::make_shared<lora::LinearLayer>(site, settings_[index]);
}

std::shared_ptr<peft::Layer> Lora::make_embedding_layer(const peft::Embedding& site, std::size_t index,
                                                        const at::TensorOptions&) {
  for (const auto& [on, option] :
       {std::pair(options_.lora_bias, "lora_bias"), std::pair(options_.use_dora, "use_dora")})
    if (on)
      throw peft::ConfigError(std::string("[adapter] ") + option + ": '" + site.path() +
                              "' is an embedding, which has no place for it");
  return std::make_shared<lora::EmbeddingLayer>(site, settings_[index]);
}

void Lora::attach(peft::Model& model, torch::Dtype dtype) {
  TargetedAdapter::attach(model, dtype);
  const peft::MemoryScope scope(peft::MemoryComponent::adapter);
  for (peft::Site* site : model.sites())
    if (site->frozen().bias.defined() &&
        (options_.bias == "all" || (options_.bias == "lora_only" && !layers_on(*site).empty())))
      site->train_copy("bias", dtype);
  if (!options_.trainable_token_indices) return;
  const std::string option = "trainable_token_indices";
  const peft::TokenRowsForm form{option, "token_adapter", false,
                                 at::TensorOptions().dtype(dtype).device(model.device())};
  for (auto& [site, layer] :
       peft::token_rows(model, peft::token_sites(model, *options_.trainable_token_indices, option), form))
    place(*site, "tokens", std::move(layer));
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

/// An adapted embedding or head is saved along.
peft::State Lora::hf_base_state(const peft::Model& model) const {
  peft::State state;
  // With trained tokens PEFT leaves it to the base's folder.
  if (!names_embedding() || options_.trainable_token_indices) return state;
  for (const peft::Site* site : std::initializer_list<const peft::Site*>{&model.embedding(), &model.head()}) {
    if (layers_on(*site).empty()) continue;
    const std::string base = "base_model.model." + site->path() + ".base_layer.";
    state.emplace(base + "weight", site->frozen().weight);
    if (site->frozen().bias.defined() && !site->copies().contains("bias"))
      state.emplace(base + "bias", site->frozen().bias);
  }
  return state;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Lora>(lora::read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("lora", make); }

}  // namespace

PEFT_PLUGIN("lora", "1.0.0", add)

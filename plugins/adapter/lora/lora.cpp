// LoRA: Low-Rank Adaptation (Hu et al. 2021, arXiv 2106.09685).
#include <peft/memory.h>
#include <peft/model/decoder.h>
#include <peft/plugin.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "layer.h"
#include "options.h"

namespace {

class Lora final : public peft::Adapter {
 public:
  explicit Lora(lora::Options options) : options_(std::move(options)) {}
  void attach(peft::Model& model, torch::Dtype dtype) override;
  bool starts_as_base() const override { return options_.init_lora_weights != peft::BoolOrString(false); }
  nlohmann::ordered_json hf_config(const peft::Model& model) const override { return lora::hf_config(options_, model); }
  peft::State hf_state(const peft::Model& model) const override;

 private:
  void attach(peft::Site& site, const lora::Settings& settings);
  bool names_embedding() const;
  lora::Options options_;
};

void Lora::attach(peft::Model& model, torch::Dtype dtype) {
  const peft::MemoryScope scope(peft::MemoryComponent::adapter);
  const std::vector<peft::Site*> sites = peft::select_sites(model, options_.targets);
  const auto ranks = peft::pattern_values(options_.rank_pattern, sites, options_.r, "rank_pattern");
  const auto alphas = peft::pattern_values(options_.alpha_pattern, sites, options_.lora_alpha, "alpha_pattern");
  for (std::size_t i = 0; i < sites.size(); ++i)
    attach(*sites[i], {.rank = ranks[i],
                       .scale = options_.scale(ranks[i], alphas[i]),
                       .dropout = options_.lora_dropout,
                       .bias = options_.lora_bias,
                       .init = options_.init_lora_weights,
                       .dtype = dtype,
                       .device = model.device()});
  if (options_.bias != "none")
    for (peft::Site* site : options_.bias == "all" ? model.sites() : sites)
      if (site->frozen().bias.defined()) site->train_copy("bias", dtype);
  peft::train_whole_modules(model, options_.targets, dtype);
}

void Lora::attach(peft::Site& site, const lora::Settings& settings) {
  if (const auto* linear = dynamic_cast<const peft::Linear*>(&site)) {
    place(site, "lora", std::make_shared<lora::LinearLayer>(linear->in_features(), linear->out_features(), settings));
  } else if (const auto* embedding = dynamic_cast<const peft::Embedding*>(&site)) {
    if (options_.lora_bias)
      throw peft::ConfigError("[adapter] lora_bias: '" + site.path() + "' is an embedding, which has no place for it");
    place(site, "lora", std::make_shared<lora::EmbeddingLayer>(embedding->rows(), embedding->hidden(), settings));
  }
}

/// PEFT looks for these two words in the list, or for a regex that matches either.
bool Lora::names_embedding() const {
  const auto* list = std::get_if<peft::StringList>(&options_.targets.target_modules);
  if (list == nullptr) return true;
  return std::any_of(list->begin(), list->end(),
                     [](const std::string& name) { return name == "embed_tokens" || name == "lm_head"; });
}

/// PEFT's names: what it wraps lies in a `base_layer`, and an adapted embedding or head is saved along.
peft::State Lora::hf_state(const peft::Model& model) const {
  peft::State state;
  for (const peft::Site* site : model.sites()) {
    const std::string prefix = "base_model.model." + site->path() + ".";
    const std::string base = layers_on(*site).empty() ? prefix : prefix + "base_layer.";
    for (const auto& [name, tensor] : site->copies()) state.emplace(base + name, tensor);
    for (const auto& layer : layers_on(*site))
      for (const auto& item : layer->named_parameters()) state.emplace(prefix + item.key(), item.value());
  }
  if (!names_embedding()) return state;
  for (const peft::Site* site : std::initializer_list<const peft::Site*>{&model.embedding(), &model.head()}) {
    if (layers_on(*site).empty()) continue;
    // A copy: whoever fills the state from a file must not reach the frozen weights.
    const std::string base = "base_model.model." + site->path() + ".base_layer.";
    state.emplace(base + "weight", site->frozen().weight.clone());
    if (site->frozen().bias.defined()) state.emplace(base + "bias", site->frozen().bias.clone());
  }
  return state;
}

std::unique_ptr<peft::Adapter> make(peft::Options& in) { return std::make_unique<Lora>(lora::read(in)); }

void add(peft::Registry& registry) { registry.adapters.add("lora", make); }

}  // namespace

PEFT_PLUGIN("lora", "1.0.0", add)

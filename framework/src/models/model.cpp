#include "peft/models/model.h"

#include <torch/nn/module.h>
#include <torch/types.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "models/family.h"
#include "ops/rope.h"
#include "peft/files/pretrained_model.h"

namespace peft {

Model::~Model() = default;

Model::Model(DecoderConfig config) : config_(std::move(config)), family_(&model_family(config_)) {
  const DecoderConfig& c = config_;
  embedding_ = std::make_shared<Embedding>(SiteInfo{"model.embed_tokens", "embedding"}, c.vocab_size, c.hidden_size);
  for (int64_t layer = 0; layer < c.num_hidden_layers; ++layer)
    layers_.push_back(family_->make_block(c, LayerPosition{layer, layer}));
  source_layers_.resize(layers_.size());
  std::iota(source_layers_.begin(), source_layers_.end(), 0);
  norm_ = family_->make_final_norm(c, SiteInfo{"model.norm", "norm"});
  rope_ = std::make_shared<RopeFrequencies>(rope_frequencies(c.rope, c.head_dim));
  register_sites();
}

namespace {

/// Side by side: a site's path is its name, and torch allows no dot in one.
Site* register_site(Model& model, const std::shared_ptr<Site>& site) {
  std::string name = site->path();
  std::replace(name.begin(), name.end(), '.', '/');
  return model.register_module(name, site).get();
}

}  // namespace

void Model::add_head(std::shared_ptr<Site> head) {
  sites_.push_back(register_site(*this, head));
  heads_.push_back(std::move(head));
}

void Model::register_sites() {
  const auto registered = named_children();
  // From the last: each removal renumbers those after it.
  for (std::size_t i = registered.size(); i-- > 0;) unregister_module(registered[i].key());
  sites_.clear();
  const auto add = [this](const std::shared_ptr<Site>& site) { sites_.push_back(register_site(*this, site)); };
  add(embedding_);
  for (const auto& layer : layers_)
    for (const auto& site : layer->sites()) add(site);
  add(norm_);
  for (const auto& head : heads_) add(head);
  checkpointing_.assign(layers_.size(), ActivationCheckpointing::none);
}

bool Model::vocabulary_resized() const {
  const AddedVocabulary* added = origin_.checkpoint == nullptr ? nullptr : origin_.checkpoint->added();
  return added != nullptr && added->rows != added->stored_rows;
}

Site* Model::find(const std::string& path) const {
  for (Site* site : sites_)
    if (site->path() == path) return site;
  return nullptr;
}

std::vector<Attention*> Model::attentions() const {
  std::vector<Attention*> all;
  for (const auto& layer : layers_)
    if (layer->attention() != nullptr) all.push_back(layer->attention());
  return all;
}

std::vector<Site*> Model::mlps() const {
  std::vector<Site*> all;
  for (const auto& layer : layers_)
    if (layer->mlp() != nullptr) all.push_back(layer->mlp());
  return all;
}

NamedTensors Model::adapter_tensors() const {
  NamedTensors all;
  for (const Site* site : sites_)
    for (auto& [name, tensor] : site->adapter_tensors()) all.emplace_back(site->path() + "." + name, tensor);
  return all;
}

NamedTensors Model::trainable() const {
  NamedTensors all = adapter_tensors();
  std::erase_if(all, [](const NamedTensor& item) { return !item.second.requires_grad(); });
  return all;
}

NamedTensors Model::frozen() const {
  NamedTensors all;
  std::set<std::string> paths;
  for (const Site* site : sites_) {
    const std::string& path = site->checkpoint_path();
    if ((site == output_embedding() && config_.tie_word_embeddings) || !paths.insert(path).second) continue;
    if (site->base_weight() != nullptr)
      for (const auto& [name, tensor] : site->base_weight()->parts())
        all.emplace_back(path + ".weight" + (name.empty() ? "" : "." + name), tensor);
    if (site->base_bias().defined()) all.emplace_back(path + ".bias", site->base_bias());
  }
  return all;
}

void Model::set_checkpointing(std::vector<ActivationCheckpointing> by_layer) {
  TORCH_CHECK(by_layer.size() == layers_.size(), "expected one setting for each of ", layers_.size(), " layers");
  checkpointing_ = std::move(by_layer);
}

void Model::enable_adapters(bool on) {
  for (Site* site : sites_) site->enable_adapters(on);
}

void Model::enable_fusion(bool on) {
  for (Site* site : sites_) site->enable_fusion(on);
  for (const auto& layer : layers_) layer->enable_fusion(on);
}

}  // namespace peft

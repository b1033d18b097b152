#include "peft/adapters/adapter.h"

#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/models/decoder.h"
#include "peft/nn/site.h"

namespace peft {

Adapter::~Adapter() = default;

std::vector<ParamGroup> Adapter::groups(const Model& model) const {
  ParamGroup group;
  group.name = "adapter";
  group.parameters = own_parameters(model);
  return {group};
}

StateDict Adapter::to_hf(const Model& model) const {
  StateDict state;
  for (const auto& [name, tensor] : own_parameters(model)) state.emplace("base_model.model." + name, tensor);
  return state;
}

void Adapter::from_hf(const Model& model, const StateDict& file) const {
  const torch::NoGradGuard no_grad;
  for (const auto& [key, tensor] : to_hf(model)) Tensor(tensor).copy_(file.at(key));
}

Tensor Adapter::auxiliary_loss() const { return {}; }

void Adapter::calibrate(Model&, const Calibration&) {}

StateDict Adapter::add_derived_tensors(const Model&, StateDict file) const { return file; }

StateDict Adapter::tensors(const Model& model) const {
  StateDict all;
  for (const Site* site : model.sites()) {
    for (const auto& [name, copy] : trainable_copies(*site)) all.emplace(site->path() + "." + name, copy);
    const auto layers = layers_on(*site);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string prefix = site->path() + "#" + std::to_string(i) + ".";
      for (const auto& item : layers[i]->named_parameters()) all.emplace(prefix + item.key(), item.value());
      for (const auto& item : layers[i]->named_buffers()) all.emplace(prefix + item.key(), item.value());
    }
  }
  return all;
}

StateDict Adapter::state_dict() const { return {}; }
void Adapter::load_state_dict(const StateDict& state) {
  if (!state.empty()) throw InputError("this adapter keeps no state, but the checkpoint has some");
}

StateDict Adapter::base_tensors_saved_by_hf(const Model& model) const {
  StateDict state;
  if (!model.vocabulary_resized()) return state;
  for (const Site* site : std::initializer_list<const Site*>{&model.embedding(), &model.lm_head()}) {
    if (site == &model.lm_head() && model.config().tie_word_embeddings) continue;
    const char* name = trainable_copies(*site).contains("weight") ? ".original_module.weight"
                       : layers_on(*site).empty()                 ? ".weight"
                                                                  : ".base_layer.weight";
    state.emplace("base_model.model." + site->path() + name, site->frozen().weight);
  }
  return state;
}

StateDict Adapter::encoder_state_dict(const Model&) const { return {}; }

void Adapter::add_layer(Site& site, const std::string& name, std::shared_ptr<AdapterLayer> layer) {
  placed_[&site].push_back(layer);
  site.attach(name, std::move(layer));
}

std::vector<std::shared_ptr<AdapterLayer>> Adapter::layers_on(const Site& site) const {
  const auto it = placed_.find(&site);
  return it == placed_.end() ? std::vector<std::shared_ptr<AdapterLayer>>{} : it->second;
}

std::map<std::string, Tensor> Adapter::trainable_copies(const Site& site) const {
  const auto it = copied_.find(&site);
  return it == copied_.end() ? std::map<std::string, Tensor>{} : it->second;
}

void Adapter::make_trainable(Site& site, const std::string& parameter, torch::Dtype dtype) {
  if (site.copies().contains(parameter) && !trainable_copies(site).contains(parameter))
    throw ConfigError("[adapter] '" + printable(site.path()) + "." + parameter + "' is trained by another adapter");
  copied_[&site][parameter] = site.make_trainable(parameter, dtype);
}

void Adapter::train_modules_to_save(const std::vector<Site*>& sites, torch::Dtype dtype) {
  for (Site* site : sites)
    for (const std::string& parameter : site->parameter_names()) make_trainable(*site, parameter, dtype);
}

NamedTensors Adapter::own_parameters(const Model& model) const {
  NamedTensors own;
  for (const Site* site : model.sites()) {
    for (const auto& [name, copy] : trainable_copies(*site)) own.emplace_back(site->path() + "." + name, copy);
    for (const auto& layer : layers_on(*site))
      for (const auto& item : layer->named_parameters())
        own.emplace_back(site->path() + "." + item.key(), item.value());
  }
  std::erase_if(own, [](const NamedTensor& item) { return !item.second.requires_grad(); });
  return own;
}

}  // namespace peft

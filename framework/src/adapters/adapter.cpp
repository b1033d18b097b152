#include "peft/adapters/adapter.h"

#include <torch/types.h>

#include <stdexcept>

#include "adapters/lenient_targets.h"
#include "peft/base/error.h"
#include "peft/models/model.h"
#include "peft/nn/attention.h"
#include "peft/nn/embedding.h"
#include "plugin/plugin_call.h"

namespace peft {

Adapter::~Adapter() = default;

void Adapter::attach(Model& model, torch::Dtype dtype) {
  const LenientTargets lenient(will_be_loaded_);
  detail::call_plugin(*this, "attach", [&] {
    do_attach(model, dtype);
    for (const auto& [name, tensor] : model.frozen())
      if (tensor.requires_grad())
        throw std::logic_error("it made '" + printable(name) +
                               "' of the frozen base require a gradient; make_trainable trains a copy");
  });
}

std::vector<ParamGroup> Adapter::groups(const Model& model) const {
  return detail::call_plugin(*this, "groups", [&] { return do_groups(model); });
}

std::vector<ParamGroup> Adapter::do_groups(const Model& model) const {
  ParamGroup group;
  group.name = "adapter";
  group.parameters = trainable_parameters(model);
  return {group};
}

std::vector<std::shared_ptr<AdapterModule>> Adapter::modules_on(const Site& site) const {
  const auto it = modules_.find(&site);
  return it == modules_.end() ? std::vector<std::shared_ptr<AdapterModule>>{} : it->second;
}

std::vector<std::shared_ptr<AdapterLayer>> Adapter::layers_on(const Site& site) const {
  std::vector<std::shared_ptr<AdapterLayer>> layers;
  for (const auto& module : modules_on(site))
    if (auto layer = std::dynamic_pointer_cast<AdapterLayer>(module)) layers.push_back(std::move(layer));
  return layers;
}

std::map<std::string, Tensor> Adapter::trainable_copies(const Site& site) const {
  const auto it = copies_.find(&site);
  return it == copies_.end() ? std::map<std::string, Tensor>{} : it->second;
}

NamedTensors Adapter::trainable_parameters(const Model& model) const {
  NamedTensors parameters;
  for (const Site* site : model.sites()) {
    for (const auto& [name, copy] : trainable_copies(*site)) parameters.emplace_back(site->path() + "." + name, copy);
    for (const auto& module : modules_on(*site))
      for (const auto& item : module->named_parameters())
        parameters.emplace_back(site->path() + "." + item.key(), item.value());
  }
  std::erase_if(parameters, [](const NamedTensor& item) { return !item.second.requires_grad(); });
  return parameters;
}

StateDict Adapter::all_tensors(const Model& model) const {
  StateDict all;
  for (const Site* site : model.sites()) {
    for (const auto& [name, copy] : trainable_copies(*site)) all.emplace(site->path() + "." + name, copy);
    const auto modules = modules_on(*site);
    for (std::size_t i = 0; i < modules.size(); ++i) {
      const std::string prefix = site->path() + "#" + std::to_string(i) + ".";
      for (const auto& item : modules[i]->named_parameters()) all.emplace(prefix + item.key(), item.value());
      for (const auto& item : modules[i]->named_buffers()) all.emplace(prefix + item.key(), item.value());
    }
  }
  return all;
}

void Adapter::add_layer(Site& site, const std::string& name, std::shared_ptr<AdapterLayer> layer) {
  modules_[&site].push_back(layer);
  site.attach(name, std::move(layer));
}

void Adapter::add_virtual_tokens(Embedding& site, const std::string& name, std::shared_ptr<VirtualTokens> tokens) {
  modules_[&site].push_back(tokens);
  site.add_virtual_tokens(name, std::move(tokens));
}

void Adapter::add_kv_prefix(Attention& site, const std::string& name, std::shared_ptr<VirtualKeys> prefix) {
  modules_[&site].push_back(prefix);
  site.add_kv_prefix(name, std::move(prefix));
}

void Adapter::make_trainable(Site& site, const std::string& parameter, torch::Dtype dtype) {
  if (site.copies().contains(parameter) && !trainable_copies(site).contains(parameter))
    throw ConfigError("[adapter] '" + printable(site.path()) + "." + parameter + "' is trained by another adapter");
  copies_[&site][parameter] = site.make_trainable(parameter, dtype);
}

void Adapter::train_modules_to_save(const std::vector<Site*>& sites, torch::Dtype dtype) {
  for (Site* site : sites)
    for (const std::string& parameter : site->parameter_names()) make_trainable(*site, parameter, dtype);
}

}  // namespace peft

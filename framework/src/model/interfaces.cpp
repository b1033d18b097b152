// The out-of-line parts of the plugin interfaces: their typeinfo lives in libpeft once.
#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "peft/adapter.h"
#include "peft/clipping.h"
#include "peft/error.h"
#include "peft/model/decoder.h"
#include "peft/optimizer.h"
#include "peft/precision.h"
#include "peft/scheduler.h"
#include "peft/site.h"
#include "plugin/in_plugin.h"

namespace peft {

Adapter::~Adapter() = default;

std::vector<ParamGroup> Adapter::groups(const Model& model) const {
  ParamGroup group;
  group.name = "adapter";
  group.parameters = own_parameters(model);
  return {group};
}

State Adapter::hf_state(const Model& model) const {
  State state;
  for (const auto& [name, tensor] : own_parameters(model)) state.emplace("base_model.model." + name, tensor);
  return state;
}

void Adapter::load_hf_state(const Model& model, const State& file) const {
  const torch::NoGradGuard no_grad;
  for (const auto& [key, tensor] : hf_state(model)) Tensor(tensor).copy_(file.at(key));
}

Tensor Adapter::auxiliary_loss() const { return {}; }

void Adapter::calibrate(Model&, const Calibration&) {}

State Adapter::completed(const Model&, State file) const { return file; }

State Adapter::tensors(const Model& model) const {
  State all;
  for (const Site* site : model.sites()) {
    for (const auto& [name, copy] : copies_on(*site)) all.emplace(site->path() + "." + name, copy);
    const auto layers = layers_on(*site);
    for (std::size_t i = 0; i < layers.size(); ++i) {
      const std::string prefix = site->path() + "#" + std::to_string(i) + ".";
      for (const auto& item : layers[i]->named_parameters()) all.emplace(prefix + item.key(), item.value());
      for (const auto& item : layers[i]->named_buffers()) all.emplace(prefix + item.key(), item.value());
    }
  }
  return all;
}

State Adapter::state() const { return {}; }
void Adapter::load(const State& state) {
  if (!state.empty()) throw InputError("this adapter keeps no state, but the checkpoint has some");
}

State Adapter::hf_base_state(const Model& model) const {
  State state;
  if (!model.vocabulary_resized()) return state;
  for (const Site* site : std::initializer_list<const Site*>{&model.embedding(), &model.head()}) {
    if (site == &model.head() && model.config().tie_word_embeddings) continue;
    const char* name = copies_on(*site).contains("weight") ? ".original_module.weight"
                       : layers_on(*site).empty()          ? ".weight"
                                                           : ".base_layer.weight";
    state.emplace("base_model.model." + site->path() + name, site->frozen().weight);
  }
  return state;
}

State Adapter::training_state(const Model&) const { return {}; }

void Adapter::place(Site& site, const std::string& name, std::shared_ptr<Layer> layer) {
  placed_[&site].push_back(layer);
  site.attach(name, std::move(layer));
}

std::vector<std::shared_ptr<Layer>> Adapter::layers_on(const Site& site) const {
  const auto it = placed_.find(&site);
  return it == placed_.end() ? std::vector<std::shared_ptr<Layer>>{} : it->second;
}

std::map<std::string, Tensor> Adapter::copies_on(const Site& site) const {
  const auto it = copied_.find(&site);
  return it == copied_.end() ? std::map<std::string, Tensor>{} : it->second;
}

void Adapter::train_copy(Site& site, const std::string& parameter, torch::Dtype dtype) {
  if (site.copies().contains(parameter) && !copies_on(site).contains(parameter))
    throw ConfigError("[adapter] '" + printable(site.path()) + "." + parameter + "' is trained by another adapter");
  copied_[&site][parameter] = site.train_copy(parameter, dtype);
}

void Adapter::train_whole(const std::vector<Site*>& sites, torch::Dtype dtype) {
  for (Site* site : sites)
    for (const std::string& parameter : site->parameter_names()) train_copy(*site, parameter, dtype);
}

NamedTensors Adapter::own_parameters(const Model& model) const {
  NamedTensors own;
  for (const Site* site : model.sites()) {
    for (const auto& [name, copy] : copies_on(*site)) own.emplace_back(site->path() + "." + name, copy);
    for (const auto& layer : layers_on(*site))
      for (const auto& item : layer->named_parameters())
        own.emplace_back(site->path() + "." + item.key(), item.value());
  }
  std::erase_if(own, [](const NamedTensor& item) { return !item.second.requires_grad(); });
  return own;
}

Optimizer::~Optimizer() = default;

void Optimizer::add(ParamGroup group) {
  detail::in_plugin(*this, "default_lr", [&] {
    if (!group.initial_lr) group.initial_lr = default_lr() * group.lr_scale;
    if (!group.weight_decay) group.weight_decay = default_weight_decay();
  });
  group.lr = *group.initial_lr;
  groups_.push_back(std::move(group));
}

void Optimizer::zero_grad() {
  for (ParamGroup& group : groups_)
    for (auto& [name, parameter] : group.parameters) parameter.mutable_grad().reset();
}

std::vector<Tensor> parameters_of(const std::vector<ParamGroup>& groups) {
  std::vector<Tensor> all;
  for (const ParamGroup& group : groups)
    for (const auto& [name, parameter] : group.parameters) all.push_back(parameter);
  return all;
}

Scheduler::~Scheduler() = default;
GradientClipper::~GradientClipper() = default;
Precision::~Precision() = default;

void Scheduler::load(const std::map<std::string, double>& state) {
  if (!state.empty()) throw InputError("this scheduler keeps no state, but the checkpoint has some");
}

void GradientClipper::load(const State& state) {
  if (!state.empty()) throw InputError("this clipping keeps no state, but the checkpoint has some");
}

void Precision::backward(const Tensor& loss) { loss.backward(); }
bool Precision::ready(const std::vector<Tensor>&) { return true; }
void Precision::load(const State& state) {
  if (!state.empty()) throw InputError("this precision keeps no state, but the checkpoint has some");
}

}  // namespace peft

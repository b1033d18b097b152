#include "peft/adapters/hf_format.h"

#include <torch/torch.h>

#include <nlohmann/json.hpp>

#include "peft/adapters/adapter.h"
#include "peft/models/model.h"
#include "plugin/plugin_call.h"

namespace peft {

using detail::call_plugin;

namespace {

constexpr const char* kPrefix = "base_model.model.";

}  // namespace

std::string hf_key(const std::string& site_path, const std::string& name) { return kPrefix + site_path + "." + name; }

std::string hf_key(const Site& site, const std::string& name) { return hf_key(site.path(), name); }

HfFormat::~HfFormat() = default;

nlohmann::ordered_json HfFormat::config(const Model& model) const {
  return call_plugin(*this, "hf_config", [&] {
    nlohmann::ordered_json config = do_config(model);
    TORCH_CHECK(config.is_object() || config.is_null(), "the config is not an object");
    return config.is_null() ? nlohmann::ordered_json::object() : config;
  });
}

StateDict HfFormat::to_hf(const Model& model) const {
  return call_plugin(*this, "to_hf", [&] { return do_to_hf(model); });
}

StateDict HfFormat::add_derived_tensors(const Model& model, StateDict file) const {
  return call_plugin(*this, "add_derived_tensors", [&] { return do_add_derived_tensors(model, std::move(file)); });
}

void HfFormat::from_hf(const Model& model, const StateDict& file) const {
  call_plugin(*this, "from_hf", [&] { do_from_hf(model, file); });
}

StateDict HfFormat::base_tensors(const Model& model) const {
  return call_plugin(*this, "base_tensors", [&] { return do_base_tensors(model); });
}

StateDict HfFormat::do_to_hf(const Model& model) const {
  StateDict state;
  for (const auto& [name, tensor] : adapter_.trainable_parameters(model)) state.emplace(kPrefix + name, tensor);
  return state;
}

StateDict HfFormat::do_add_derived_tensors(const Model&, StateDict file) const { return file; }

void HfFormat::do_from_hf(const Model& model, const StateDict& file) const {
  const torch::NoGradGuard no_grad;
  for (auto& [key, tensor] : do_to_hf(model)) tensor.copy_(file.at(key));
}

StateDict HfFormat::do_base_tensors(const Model& model) const {
  StateDict state;
  if (!model.vocabulary_resized()) return state;
  for (const Site* site : std::initializer_list<const Site*>{&model.embedding(), model.output_embedding()}) {
    if (site == nullptr || (site == model.output_embedding() && model.config().tie_word_embeddings)) continue;
    const char* name = adapter_.trainable_copies(*site).contains("weight") ? "original_module.weight"
                       : adapter_.layers_on(*site).empty()                 ? "weight"
                                                                           : "base_layer.weight";
    state.emplace(hf_key(*site, name), site->dense());
  }
  return state;
}

}  // namespace peft

#include "peft/adapters/targeted_adapter.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/models/model.h"
#include "peft/runtime/memory.h"

namespace peft {

namespace {

/// The release of HF PEFT whose format this is.
constexpr const char* kPeftVersion = "0.21.0";

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

}  // namespace

TargetedAdapter::TargetedAdapter(std::string peft_type, Targets targets, bool is_identity_at_init)
    : Adapter(is_identity_at_init), HfFormat(this), peft_type_(std::move(peft_type)), targets_(std::move(targets)) {}
TargetedAdapter::~TargetedAdapter() = default;

void TargetedAdapter::prepare(const Model&, const std::vector<Site*>&, const at::TensorOptions&) {}

std::shared_ptr<AdapterLayer> TargetedAdapter::make_embedding_layer(const Embedding& site, std::size_t,
                                                                    const at::TensorOptions&) {
  throw ConfigError("[adapter] target_modules: '" + printable(site.path()) + "' is an embedding, and " +
                    lower(peft_type_) + " adapts linear layers only");
}

void TargetedAdapter::do_attach(Model& model, torch::Dtype dtype) {
  const MemoryScope scope(MemoryComponent::adapter);
  const at::TensorOptions tensor_options = at::TensorOptions().dtype(dtype).device(model.device());
  const std::vector<Site*> sites = select_sites(model, targets_);
  prepare(model, sites, tensor_options);
  const std::string name = lower(peft_type_);
  for (std::size_t i = 0; i < sites.size(); ++i) {
    const auto* linear = dynamic_cast<const Linear*>(sites[i]);
    add_layer(*sites[i], name,
              linear != nullptr ? make_layer(*linear, i, tensor_options)
                                : make_embedding_layer(dynamic_cast<const Embedding&>(*sites[i]), i, tensor_options));
  }
  train_modules_to_save(sites_to_save(model, targets_), dtype);
}

nlohmann::ordered_json common_config(const std::string& peft_type) {
  return {{"auto_mapping", nullptr}, {"base_model_name_or_path", nullptr}, {"inference_mode", true},
          {"peft_type", peft_type},  {"peft_version", kPeftVersion},       {"revision", nullptr},
          {"task_type", "CAUSAL_LM"}};
}

nlohmann::ordered_json sorted_config(const nlohmann::ordered_json& config) { return nlohmann::json(config); }

nlohmann::ordered_json TargetedAdapter::do_config(const Model& model) const {
  nlohmann::ordered_json config = common_config(peft_type_);
  write_targets(model, targets_, config);
  write_config(config);
  return sorted_config(config);
}

/// HF PEFT's names: a wrapped module is a child called `base_layer`.
StateDict TargetedAdapter::do_to_hf(const Model& model) const {
  StateDict state;
  for (const Site* site : model.sites()) {
    const auto layers = layers_on(*site);
    const std::string wrapped = layers.empty() ? "" : "base_layer.";
    for (const auto& [name, tensor] : trainable_copies(*site)) state.emplace(hf_key(*site, wrapped + name), tensor);
    for (const auto& layer : layers) {
      for (const auto& item : layer->named_parameters()) state.emplace(hf_key(*site, item.key()), item.value());
      for (const auto& item : layer->named_buffers()) state.emplace(hf_key(*site, item.key()), item.value());
    }
  }
  for (const auto& [name, tensor] : shared_) state.emplace("base_model." + name, tensor);
  return state;
}

}  // namespace peft

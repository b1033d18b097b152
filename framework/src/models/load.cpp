#include "peft/models/load.h"

#include <torch/torch.h>

#include <nlohmann/json.hpp>
#include <set>

#include "peft/base/error.h"
#include "peft/runtime/memory.h"
#include "runtime/finite.h"
#include "runtime/stored_types.h"

namespace peft {

namespace {

bool is_number(StoredType type) { return type < StoredType::i64 || type >= StoredType::q4_0; }

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (const int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

/// Whether the file's own pages hold just what is wanted.
bool lies_as_wanted(const PretrainedModel& checkpoint, const StoredTensor& stored, torch::Dtype dtype) {
  const bool aligned = reinterpret_cast<uintptr_t>(stored.data) % c10::elementSize(dtype) == 0;
  return torch_type(stored.type) == dtype && checkpoint.is_direct(stored) && aligned;
}

/// Those pages, else a converted copy.
Tensor load_tensor(const std::shared_ptr<const PretrainedModel>& checkpoint, const StoredTensor& stored,
                   torch::Dtype dtype, torch::Device device) {
  if (lies_as_wanted(*checkpoint, stored, dtype)) {
    auto* data = const_cast<std::byte*>(stored.data);
    const Tensor mapped = torch::from_blob(data, stored.shape, [checkpoint](void*) {}, torch::dtype(dtype));
    return mapped.to(device);
  }
  Tensor wide = torch::empty(stored.shape, torch::kFloat);
  checkpoint->read(stored, wide.data_ptr<float>());
  return wide.to(device, dtype);
}

/// Every parameter the model has, by checkpoint name.
struct Wanted {
  Site* site;
  std::string parameter;
  std::vector<int64_t> shape;
};

std::vector<int64_t> parameter_shape(const Site& site, const std::string& parameter) {
  if (const auto* linear = dynamic_cast<const Linear*>(&site))
    return parameter == "bias" ? std::vector{linear->out_features()}
                               : std::vector{linear->out_features(), linear->in_features()};
  if (const auto* embedding = dynamic_cast<const Embedding*>(&site)) return {embedding->rows(), embedding->hidden()};
  return {dynamic_cast<const Norm&>(site).hidden()};
}

std::map<std::string, Wanted> wanted(const CausalLm& model) {
  std::map<std::string, Wanted> all;
  for (Site* site : model.sites()) {
    if (site == &model.lm_head() && model.config().tie_word_embeddings) continue;
    for (const std::string& parameter : site->parameter_names())
      all[site->path() + "." + parameter] = {site, parameter, parameter_shape(*site, parameter)};
  }
  return all;
}

std::string listed(const std::set<std::string>& names) {
  std::string text;
  int shown = 0;
  for (const std::string& name : names) {
    if (++shown > 8) return text + ", … (" + std::to_string(names.size()) + " in all)";
    text += (text.empty() ? "" : ", ") + printable(name);
  }
  return text;
}

/// Tensors that transformers too passes over: buffers that older versions saved.
bool is_known_surplus(const std::string& name, const DecoderConfig& config) {
  return name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
}

void check_names(const PretrainedModel& checkpoint, const DecoderConfig& config,
                 const std::map<std::string, Wanted>& parameters) {
  std::set<std::string> missing, unexpected;
  for (const auto& [name, parameter] : parameters) missing.insert(name);
  for (const StoredTensor& stored : checkpoint.tensors())
    if (missing.erase(stored.name) == 0 && !is_known_surplus(stored.name, config)) unexpected.insert(stored.name);
  if (missing.empty() && unexpected.empty()) return;
  throw InputError(printable(checkpoint.path(), 4096) + ": the tensors are not those of this " +
                   printable(config.model_type) + " model; missing: " + (missing.empty() ? "none" : listed(missing)) +
                   "; unexpected: " + (unexpected.empty() ? "none" : listed(unexpected)));
}

/// Before minutes are spent on what will not fit.
void require_room(const PretrainedModel& checkpoint, const std::map<std::string, Wanted>& parameters,
                  torch::Dtype dtype) {
  uint64_t bytes = 0;
  for (const StoredTensor& stored : checkpoint.tensors()) {
    if (!parameters.contains(stored.name) || lies_as_wanted(checkpoint, stored, dtype)) continue;
    uint64_t own = c10::elementSize(dtype);
    for (const int64_t size : stored.shape) own *= static_cast<uint64_t>(size);
    bytes += own;
  }
  const AvailableMemory room = available_memory();
  if (bytes > room.bytes)
    throw ResourceError(printable(checkpoint.path(), 4096) + ": its weights need " + std::to_string(bytes >> 20) +
                        " MiB in " + c10::toString(dtype) + ", but " + room.bound + " leaves " +
                        std::to_string(room.bytes >> 20) + " MiB; a narrower precision or a smaller model needs less");
}

}  // namespace

std::shared_ptr<CausalLm> load_model(std::shared_ptr<const PretrainedModel> checkpoint, torch::Dtype dtype,
                                     torch::Device device) {
  const torch::NoGradGuard no_grad;
  const MemoryScope scope(MemoryComponent::base);
  auto model = std::make_shared<CausalLm>(decoder_config(checkpoint->config(), checkpoint->path()));
  const auto parameters = wanted(*model);
  check_names(*checkpoint, model->config(), parameters);
  if (device.is_cpu()) require_room(*checkpoint, parameters, dtype);

  std::map<Site*, WeightAndBias> loaded;
  for (const auto& [name, parameter] : parameters) {
    const StoredTensor& stored = *checkpoint->find(name);
    if (stored.shape != parameter.shape || !is_number(stored.type))
      throw InputError(printable(checkpoint->path(), 4096) + ": tensor '" + printable(name) + "' has shape " +
                       shape_text(stored.shape) + (is_number(stored.type) ? "" : " of integers") +
                       ", expected floating point " + shape_text(parameter.shape));
    const Tensor tensor = load_tensor(checkpoint, stored, dtype, device);
    if (!all_finite(tensor))
      throw InputError(printable(checkpoint->path(), 4096) + ": tensor '" + printable(name) +
                       "' holds NaN or infinity (in the precision asked for)");
    (parameter.parameter == "bias" ? loaded[parameter.site].bias : loaded[parameter.site].weight) = tensor;
  }
  for (const auto& [site, weights] : loaded) site->load_base_weight(weights);
  model->set_origin({checkpoint->path(), checkpoint->fingerprint(), checkpoint});
  if (model->config().tie_word_embeddings) model->lm_head().load_base_weight(model->embedding().base_weight());
  return model;
}

}  // namespace peft

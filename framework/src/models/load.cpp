#include "peft/models/load.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <nlohmann/json.hpp>
#include <set>

#include "architecture/read_config.h"
#include "peft/base/error.h"
#include "peft/runtime/dtype_name.h"
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

/// True if the mapped file holds the tensor as the model needs it: in its dtype, aligned, neither quantized nor
/// permuted.
bool can_map(const PretrainedModel& pretrained, const StoredTensor& stored, torch::Dtype dtype) {
  const bool aligned = reinterpret_cast<uintptr_t>(stored.data) % c10::elementSize(dtype) == 0;
  return torch_type(stored.type) == dtype && pretrained.is_direct(stored) && aligned;
}

/// Returns the tensor as mapped, or a converted copy if it cannot be mapped.
Tensor load_tensor(const std::shared_ptr<const PretrainedModel>& pretrained, const StoredTensor& stored,
                   torch::Dtype dtype, torch::Device device) {
  if (can_map(*pretrained, stored, dtype)) {
    auto* data = const_cast<std::byte*>(stored.data);
    const Tensor mapped = torch::from_blob(data, stored.shape, [pretrained](void*) {}, torch::dtype(dtype));
    return mapped.to(device);
  }
  Tensor wide = torch::empty(stored.shape, torch::kFloat);
  pretrained->read(stored, wide.data_ptr<float>());
  return wide.to(device, dtype);
}

/// A frozen parameter of the model.
struct Parameter {
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

/// All parameters by their names in the pretrained model's files.
std::map<std::string, Parameter> frozen_parameters(const CausalLm& model) {
  std::map<std::string, Parameter> all;
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
    if (++shown > 8) return text + ", … (" + std::to_string(names.size()) + " in total)";
    text += (text.empty() ? "" : ", ") + printable(name);
  }
  return text;
}

/// True for tensors that transformers ignores, too: buffers that its older versions saved, and the copy of a tied head.
bool is_ignored(const std::string& name, const DecoderConfig& config) {
  return name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
}

void check_names(const PretrainedModel& pretrained, const DecoderConfig& config,
                 const std::map<std::string, Parameter>& parameters) {
  std::set<std::string> missing, unexpected;
  for (const auto& [name, parameter] : parameters) missing.insert(name);
  for (const StoredTensor& stored : pretrained.tensors())
    if (missing.erase(stored.name) == 0 && !is_ignored(stored.name, config)) unexpected.insert(stored.name);
  if (missing.empty() && unexpected.empty()) return;
  throw InputError(printable_path(pretrained.path()) + ": the tensors do not match the config of this " +
                   printable(config.model_type) + " model; missing: " + (missing.empty() ? "none" : listed(missing)) +
                   "; unexpected: " + (unexpected.empty() ? "none" : listed(unexpected)));
}

/// Throws ResourceError if the weights do not fit into memory, because loading them can take minutes.
void check_fits_in_memory(const PretrainedModel& pretrained, const std::map<std::string, Parameter>& parameters,
                          torch::Dtype dtype) {
  uint64_t bytes = 0;
  for (const StoredTensor& stored : pretrained.tensors()) {
    if (!parameters.contains(stored.name) || can_map(pretrained, stored, dtype)) continue;
    uint64_t tensor_bytes = c10::elementSize(dtype);
    for (const int64_t size : stored.shape) tensor_bytes *= static_cast<uint64_t>(size);
    bytes += tensor_bytes;
  }
  const AvailableMemory available = available_memory();
  if (bytes > available.bytes)
    throw ResourceError(printable_path(pretrained.path()) + ": its weights need " + std::to_string(bytes >> 20) +
                        " MiB in " + dtype_name(dtype) + ", but " + available.bound + " leaves " +
                        std::to_string(available.bytes >> 20) + " MiB; use a narrower precision or a smaller model");
}

}  // namespace

std::shared_ptr<CausalLm> load_model(std::shared_ptr<const PretrainedModel> pretrained, torch::Dtype dtype,
                                     torch::Device device) {
  const torch::NoGradGuard no_grad;
  const MemoryScope scope(MemoryComponent::base);
  auto model = std::make_shared<CausalLm>(
      read_config(pretrained->config(), pretrained->path(), pretrained->ignores_unknown()).config);
  const auto parameters = frozen_parameters(*model);
  check_names(*pretrained, model->config(), parameters);
  if (device.is_cpu()) check_fits_in_memory(*pretrained, parameters, dtype);

  std::map<Site*, WeightAndBias> loaded;
  for (const auto& [name, parameter] : parameters) {
    const StoredTensor& stored = *pretrained->find(name);
    if (stored.shape != parameter.shape || !is_number(stored.type))
      throw InputError(printable_path(pretrained->path()) + ": tensor '" + printable(name) + "' has shape " +
                       shape_text(stored.shape) + (is_number(stored.type) ? "" : " of integers") +
                       ", expected floating point " + shape_text(parameter.shape));
    const Tensor tensor = load_tensor(pretrained, stored, dtype, device);
    if (!all_finite(tensor))
      throw InputError(printable_path(pretrained->path()) + ": tensor '" + printable(name) +
                       "' holds NaN or infinity in " + dtype_name(dtype));
    (parameter.parameter == "bias" ? loaded[parameter.site].bias : loaded[parameter.site].weight) = tensor;
  }
  for (const auto& [site, weights] : loaded) site->load_base_weight(weights);
  model->set_origin({pretrained->path(), pretrained->fingerprint(), pretrained});
  if (model->config().tie_word_embeddings) model->lm_head().load_base_weight(model->embedding().base_weight());
  return model;
}

}  // namespace peft

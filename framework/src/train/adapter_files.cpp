#include "peft/adapter_files.h"

#include <torch/torch.h>

#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "model/stored_types.h"
#include "peft/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "peft/memory.h"
#include "peft/model/decoder.h"

namespace peft {

namespace {

/// The plugin's name: PEFT's peft_type in lower case, of letters, digits and underscores alone.
std::string plugin_name(const nlohmann::json& config, const std::string& path) {
  const auto it = config.is_object() ? config.find("peft_type") : config.end();
  if (!config.is_object() || it == config.end() || !it->is_string())
    throw InputError(path + ": has no 'peft_type', so it is not an adapter of HF PEFT");
  std::string name = it->get<std::string>();
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos || name.empty())
    throw InputError(path + ": peft_type '" + printable(it->get<std::string>()) + "' is no plugin's name");
  return name;
}

bool equal_in_either_type(const Tensor& a, const Tensor& b) {
  return a.sizes() == b.sizes() && (torch::equal(a.to(b.dtype()), b) || torch::equal(a, b.to(a.dtype())));
}

/// Copies each tensor of the file into the one that the adapter would save under its key. What the adapter saves of the
/// frozen base may be absent, but must not be another base's.
void fill(State own, State file, const std::string& path) {
  std::string strangers;
  for (auto it = own.begin(); it != own.end();) {
    const auto& [key, tensor] = *it;
    const auto found = file.find(key);
    if (tensor.requires_grad() || (found != file.end() && found->second.sizes() != tensor.sizes())) {
      ++it;
      continue;
    }
    if (found != file.end() && !equal_in_either_type(found->second, tensor.cpu()))
      strangers += "\n  the base's own weight differs: " + printable(key);
    if (found != file.end()) file.erase(found);
    it = own.erase(it);
  }
  if (const std::string problems = misfits(own, file) + strangers; !problems.empty())
    throw InputError(path + " does not fit its adapter_config.json and this model:" + problems);
  const torch::NoGradGuard no_grad;
  for (const auto& [key, tensor] : own) Tensor(tensor).copy_(file.at(key));
}

}  // namespace

void write_state(const std::string& path, const State& state, const std::map<std::string, std::string>& metadata) {
  std::vector<Tensor> kept;  // alive until written
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, tensor] : state) {
    const Tensor& host = kept.emplace_back(tensor.detach().cpu().contiguous());
    tensors.push_back({.name = name,
                       .type = stored_type(host.scalar_type()),
                       .shape = host.sizes().vec(),
                       .data = host.data_ptr(),
                       .size = host.nbytes()});
  }
  write_safetensors(path, tensors, metadata);
}

State read_state(const std::string& path) {
  const auto file = SafetensorsFile::open(path);
  State state;
  for (const StoredTensor& stored : file->tensors()) {
    Tensor tensor = torch::empty(stored.shape, torch_type(stored.type).value());
    if (stored.size > 0) std::memcpy(tensor.data_ptr(), stored.data, stored.size);
    state.emplace(stored.name, tensor);
  }
  return state;
}

void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model,
                  const std::string& base_model) {
  const std::filesystem::path in = folder;
  nlohmann::ordered_json config = adapter.hf_config(model);
  config["base_model_name_or_path"] = base_model;
  if (!config.contains("task_type") || config["task_type"].is_null()) config["task_type"] = "CAUSAL_LM";
  write_state((in / "adapter_model.safetensors").string(), adapter.hf_state(model), {{"format", "pt"}});
  write_file((in / "adapter_config.json").string(), config.dump(2) + "\n");
}

std::unique_ptr<Adapter> load_adapter(const std::string& folder, Plugins& plugins, Model& model, torch::Dtype dtype) {
  const std::filesystem::path in = folder;
  const std::string config_path = (in / "adapter_config.json").string();
  const nlohmann::json config = read_json(config_path);
  Document document = Document::from_adapter_config("adapter", config, config_path);
  Options options = document.table("adapter");
  auto adapter = plugins.make<Adapter>(plugin_name(config, config_path), options);
  document.finish();
  try {
    adapter->attach(model, dtype);
  } catch (const ConfigError& error) {  // here the options are the file's
    throw InputError(config_path + ": " + error.what());
  }
  const std::string path = (in / "adapter_model.safetensors").string();
  const MemoryScope scope(MemoryComponent::adapter);
  fill(adapter->hf_state(model), read_state(path), path);
  return adapter;
}

}  // namespace peft

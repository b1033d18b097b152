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

/// Copies each tensor of the file into the one that the adapter would save under its key.
void fill(const State& own, const State& file, const std::string& path) {
  std::string problems;
  for (const auto& [key, tensor] : own) {
    const auto it = file.find(key);
    if (it == file.end()) {
      problems += "\n  missing: " + printable(key);
    } else if (it->second.sizes() != tensor.sizes()) {
      std::ostringstream line;
      line << "\n  " << printable(key) << " has shape " << it->second.sizes() << ", expected " << tensor.sizes();
      problems += line.str();
    } else if (!at::isfinite(it->second).all().item<bool>()) {
      problems += "\n  " + printable(key) + " holds NaN or infinity";
    }
  }
  for (const auto& [key, tensor] : file)
    if (!own.contains(key)) problems += "\n  unexpected: " + printable(key);
  if (!problems.empty()) throw InputError(path + " does not fit its adapter_config.json and this model:" + problems);
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

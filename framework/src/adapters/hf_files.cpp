#include "peft/adapters/hf_files.h"

#include <torch/torch.h>

#include <cctype>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "adapters/adapter_folder.h"
#include "adapters/base_match.h"
#include "files/atomic_file.h"
#include "peft/adapters/encoder_state.h"
#include "peft/adapters/hf_format.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "peft/models/model.h"
#include "peft/options/document.h"
#include "peft/runtime/memory.h"
#include "peft/runtime/state_dict_file.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

/// HF PEFT's peft_type in lower case: letters, digits and underscores.
std::string plugin_name(const nlohmann::json& config, const std::string& path) {
  const auto it = config.is_object() ? config.find("peft_type") : config.end();
  if (!config.is_object() || it == config.end() || !it->is_string())
    throw InputError(path + ": has no 'peft_type', so it is not an adapter of HF PEFT");
  std::string name = it->get<std::string>();
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos || name.empty())
    throw InputError(path + ": peft_type '" + printable(it->get<std::string>()) + "' is not a plugin's name");
  return name;
}

void load_weights(const Adapter& adapter, const Model& model, StateDict file, const std::string& path) {
  const HfFormat& format = adapter.hf_format();
  try {
    file = format.add_derived_tensors(model, std::move(file));
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
  const StateDict expected = format.to_hf(model);
  const StateDict base = repeated_base_tensors(adapter, model, expected, file);
  const std::string base_problems = describe_base_mismatch(base, file);
  file = without_base_tensors(std::move(file), base);
  if (const std::string problems = describe_mismatch(expected, file) + base_problems; !problems.empty())
    throw InputError(path + " does not fit its adapter_config.json and this model:" + problems);
  format.from_hf(model, file);
}

/// Returns false if the folder has no file with the encoder's state.
bool load_encoder_state(const StateDict& expected, const std::string& folder) {
  const fs::path path = fs::path(folder) / kEncoderState;
  if (expected.empty()) return true;
  if (!fs::exists(path)) return false;
  const StateDict file = read_state(path.string());
  if (const std::string problems = describe_mismatch(expected, file); !problems.empty())
    throw InputError(path.string() + " does not fit its adapter_config.json and this model:" + problems);
  const torch::NoGradGuard no_grad;
  for (const auto& [key, tensor] : expected) tensor.copy_(file.at(key));
  return true;
}

}  // namespace

std::string peft_type(const Adapter& adapter, const Model& model) {
  const auto config = adapter.hf_format().config(model);
  const auto type = config.find("peft_type");
  return type != config.end() && type->is_string() ? type->get<std::string>() : "adapter";
}

void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model) {
  const fs::path path = folder;
  const HfFormat& format = adapter.hf_format();
  nlohmann::ordered_json config = format.config(model);
  StateDict weights = format.to_hf(model), encoder;
  weights.merge(format.base_tensors(model));
  if (const EncoderState* part = adapter.encoder_state()) encoder = part->encoder_state_dict(model);
  config["base_model_name_or_path"] = model.origin().path;
  if (!config.contains("task_type") || config["task_type"].is_null()) config["task_type"] = "CAUSAL_LM";
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!model.origin().fingerprint.empty()) metadata[kFingerprint] = model.origin().fingerprint;
  // A path may contain bytes that are not UTF-8.
  const std::string text = config.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  remove_stale_adapter_files(path, text);
  write_state((path / kAdapterWeights).string(), weights, metadata);
  if (!encoder.empty()) write_state((path / kEncoderState).string(), encoder, metadata);
  write_adapter_tokenizer(model, folder);
  write_file((path / kAdapterConfig).string(), text);
}

void copy_adapter(const std::string& from, const std::string& to, const Model& model) {
  const fs::path source = from, target = to;
  remove_stale_adapter_files(target, read_text((source / kAdapterConfig).string()));
  copy_adapter_file(source / kAdapterWeights, target / kAdapterWeights);
  if (fs::exists(source / kEncoderState)) copy_adapter_file(source / kEncoderState, target / kEncoderState);
  write_adapter_tokenizer(model, to);
  copy_adapter_file(source / kAdapterConfig, target / kAdapterConfig);
}

OpenedAdapter open_adapter(const std::string& folder, Plugins& plugins) {
  const std::string path = (fs::path(folder) / kAdapterConfig).string();
  return open_adapter(read_json(path), path, plugins);
}

OpenedAdapter open_adapter(const nlohmann::json& config, const std::string& where, Plugins& plugins) {
  Document document = Document::from_adapter_config("adapter", config, where);
  Options options = document.table("adapter");
  const std::string name = plugin_name(config, where);
  auto adapter = plugins.make<Adapter>(name, options);
  document.finish();
  adapter->skip_init();
  return {std::move(adapter), name};
}

BaseMatch load_adapter_weights(const std::string& folder, Adapter& adapter, const Model& model, bool any_base) {
  const std::string path = (fs::path(folder) / kAdapterWeights).string();
  const auto file = SafetensorsFile::open(path);
  const BaseMatch base = check_base(*file, model, any_base);
  const MemoryScope scope(MemoryComponent::adapter);
  load_weights(adapter, model, read_state(*file), path);
  if (const EncoderState* encoder = adapter.encoder_state())
    encoder->on_weights_loaded(load_encoder_state(encoder->encoder_state_dict(model), folder));
  return base;
}

LoadedAdapter load_adapter(const std::string& folder, Plugins& plugins, Model& model, torch::Dtype dtype,
                           bool any_base) {
  LoadedAdapter loaded{open_adapter(folder, plugins).adapter, BaseMatch::unknown};
  try {
    loaded.adapter->attach(model, dtype);
  } catch (const ConfigError& error) {  // the options come from the file, not from the user's TOML
    throw InputError((fs::path(folder) / kAdapterConfig).string() + ": " + error.what());
  }
  loaded.base = load_adapter_weights(folder, *loaded.adapter, model, any_base);
  return loaded;
}

}  // namespace peft

#include "peft/adapters/hf_files.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <cctype>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "adapters/adapter_folder.h"
#include "adapters/base_match.h"
#include "files/atomic_file.h"
#include "peft/adapters/encoder_state.h"
#include "peft/adapters/hf_format.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/pretrained_model.h"
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
  if (name == "BONE")
    throw InputError(path +
                     ": peft_type 'BONE' is the old name of MiSS; convert the adapter with HF PEFT's "
                     "scripts/convert-bone-to-miss.py");
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") != std::string::npos || name.empty())
    throw InputError(path + ": peft_type '" + printable(it->get<std::string>()) + "' is not a plugin's name");
  return name;
}

/// A file of another spelling: of a state_dict(), whose keys have the adapter's name.
StateDict without_adapter_name(StateDict file, const StateDict& expected, const std::string& path) {
  StateDict renamed;
  for (auto& [key, tensor] : file) {
    std::string name = key;
    for (const std::string infix : {".modules_to_save.default.", ".default."})
      if (const auto at = name.rfind(infix); at != name.npos && !expected.contains(name))
        name.replace(at, infix.size(), ".");
    if (name.ends_with(".default") && !expected.contains(name)) name.resize(name.size() - std::strlen(".default"));
    if (!renamed.emplace(name, tensor).second)
      throw InputError(path + ": two tensors are '" + printable(name) + "', with and without the adapter's name");
  }
  return renamed;
}

/// What to do about keys that a wrapper of the model has renamed; "" without such.
std::string wrapper_hint(const StateDict& file) {
  for (const auto& [key, tensor] : file)
    for (const auto& [part, wrapper] :
         {std::pair("_orig_mod.", "torch.compile"), {"module.", "DistributedDataParallel or DataParallel"}})
      if (key.starts_with(part) || key.find(std::string(".") + part) != key.npos)
        return std::string("\n  keys with '") + part + "' are those of a model inside " + wrapper +
               ": save the model inside it (" + (*part == 'm' ? "model.module" : "model._orig_mod") +
               ".save_pretrained), or remove that part from the keys";
  return "";
}

void load_weights(const Adapter& adapter, const Model& model, StateDict file, const std::string& path) {
  const HfFormat& format = adapter.hf_format();
  const StateDict expected = format.to_hf(model);
  file = without_adapter_name(std::move(file), expected, path);
  try {
    file = format.add_derived_tensors(model, std::move(file));
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
  const StateDict base = repeated_base_tensors(adapter, model, expected, file);
  const std::string base_problems = describe_base_mismatch(base, file);
  file = without_base_tensors(std::move(file), base);
  if (const std::string problems = describe_mismatch(expected, file) + base_problems; !problems.empty())
    throw InputError(path + " does not fit its adapter_config.json and this model:" + problems + wrapper_hint(file));
  format.from_hf(model, file);
}

/// Throws for a number that JSON cannot hold, such as an alpha of infinity.
void check_finite(const nlohmann::ordered_json& config, const std::string& key) {
  if (config.is_number_float() && !std::isfinite(config.get<double>()))
    throw InputError("the adapter's '" + printable(key) +
                     "' is not finite, so adapter_config.json cannot hold it; use a "
                     "smaller value");
  if (config.is_structured())
    for (const auto& [name, value] : config.items()) check_finite(value, config.is_object() ? name : key);
}

/// What cannot be known of an initialization that changes the base: which base the tensors belong to.
void add_initialization_note(const nlohmann::json& config, const std::string& where, StringList& notes) {
  const auto it = config.find("init_lora_weights");
  if (it == config.end() || !it->is_string()) return;
  const std::string name = it->get<std::string>();
  if (name == "corda" || name == "lora_ga" || name == "loftq" || name.starts_with("pissa_niter_"))
    notes.push_back(printable_path(where) + ": init_lora_weights '" + printable(name) +
                    "' changes the base before training, and the file was not converted; the adapter is applied to the "
                    "base as it is, so give the base that was saved with it");
}

/// The name of the base in an adapter's config; "" if it has none.
std::string named_base(const std::string& folder) {
  const nlohmann::json config = read_json((fs::path(folder) / kAdapterConfig).string());
  const auto it = config.find("base_model_name_or_path");
  return it != config.end() && it->is_string() ? it->get<std::string>() : "";
}

std::string unknown_base_note(const std::string& folder) {
  const std::string name = named_base(folder), where = printable_path(folder);
  return name.empty() ? where + " does not say which base it was trained on; its names and shapes fit this one"
                      : where + " was trained on '" + printable(name) +
                            "'; it has no fingerprint to compare, but its names and shapes fit this base";
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
  const auto& base = model.origin().checkpoint;
  config["base_model_name_or_path"] = base != nullptr ? base->base_name() : model.origin().path;
  if (!config.contains("task_type") || config["task_type"].is_null()) config["task_type"] = "CAUSAL_LM";
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!model.origin().fingerprint.empty()) metadata[kFingerprint] = model.origin().fingerprint;
  // A path may contain bytes that are not UTF-8.
  check_finite(config, "config");
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

OpenedAdapter open_adapter(const std::string& folder, Plugins& plugins, bool ignore_unknown) {
  const std::string path = (fs::path(folder) / kAdapterConfig).string();
  if (const std::string what = describe_other_folder(folder); !what.empty())
    throw InputError(printable_path(folder) + ": " + what);
  return open_adapter(read_json(path), path, plugins, ignore_unknown);
}

OpenedAdapter open_adapter(const nlohmann::json& config, const std::string& where, Plugins& plugins,
                           bool ignore_unknown) {
  Document document = Document::from_adapter_config("adapter", config, where, ignore_unknown);
  Options options = document.table("adapter");
  const std::string name = plugin_name(config, where);
  auto adapter = plugins.make<Adapter>(name, options);
  document.finish();
  adapter->skip_init();
  StringList notes = document.notes();
  add_initialization_note(config, where, notes);
  return {std::move(adapter), name, std::move(notes)};
}

BaseMatch load_adapter_weights(const std::string& folder, Adapter& adapter, const Model& model, bool any_base) {
  check_not_pickled(folder);
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
                           const LoadAdapterOptions& options) {
  OpenedAdapter opened = open_adapter(folder, plugins, options.ignore_unknown);
  LoadedAdapter loaded{std::move(opened.adapter), BaseMatch::unknown, std::move(opened.notes)};
  try {
    loaded.adapter->attach(model, dtype);
  } catch (const ConfigError& error) {  // the options come from the file, not from the user's TOML
    throw InputError((fs::path(folder) / kAdapterConfig).string() + ": " + error.what());
  }
  loaded.base = load_adapter_weights(folder, *loaded.adapter, model, options.any_base);
  if (loaded.base == BaseMatch::unknown) loaded.notes.push_back(unknown_base_note(folder));
  return loaded;
}

}  // namespace peft

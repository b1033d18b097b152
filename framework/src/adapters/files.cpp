#include "peft/adapters/files.h"

#include <torch/torch.h>

#include <cctype>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "adapters/saved_embedding.h"
#include "files/atomic_file.h"
#include "files/descriptor.h"
#include "peft/base/error.h"
#include "peft/files/json.h"
#include "peft/files/safetensors.h"
#include "peft/models/decoder.h"
#include "peft/runtime/memory.h"
#include "plugin/plugin_call.h"
#include "runtime/stored_types.h"

namespace peft {

namespace {

using detail::call_plugin;

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kWeights = "adapter_model.safetensors";
constexpr const char* kTraining = "adapter_training.safetensors";
constexpr const char* kState = "adapter_state.safetensors";
constexpr const char* kFingerprint = "base_fingerprint";
/// Beginnings of names in adapter_state.safetensors: tensors of layers, and what the method keeps beside them.
constexpr const char *kOfLayers = "layers:", *kOfMethod = "method:";

/// Copies of a file's tensors.
StateDict state_of(const SafetensorsFile& file) {
  StateDict state;
  for (const StoredTensor& stored : file.tensors()) {
    Tensor tensor = torch::empty(stored.shape, torch_type(stored.type).value());
    if (stored.size > 0) std::memcpy(tensor.data_ptr(), stored.data, stored.size);
    state.emplace(stored.name, tensor);
  }
  return state;
}

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
  return torch::equal(a.to(b.dtype()), b) || torch::equal(a, b.to(a.dtype()));
}

/// Takes what `file` holds of the frozen base out of it; what differs, for the message.
std::string take_base_tensors(const StateDict& base, StateDict& file) {
  std::string told;
  for (const auto& [key, tensor] : base) {
    const auto found = file.find(key);
    if (found == file.end()) continue;
    if (found->second.sizes() != tensor.sizes() || !equal_in_either_type(found->second, tensor.cpu()))
      told += "\n  the base's own weight differs: " + printable(key);
    file.erase(found);
  }
  return told;
}

/// Whether the file says that `model` is its base. Throws InputError where it names another.
BaseMatch check_base(const SafetensorsFile& file, const Model& model, bool any_base) {
  const auto said = file.metadata().find(kFingerprint);
  const bool known = said != file.metadata().end() && !model.origin().fingerprint.empty();
  if (known && !any_base && said->second != model.origin().fingerprint)
    throw InputError(printable(file.path(), 4096) + " was trained on another base: its fingerprint is " +
                     printable(said->second) + ", that of " + printable(model.origin().path, 4096) + " is " +
                     model.origin().fingerprint +
                     "; give the base it was trained on, or --any-base if this is the same one converted");
  return known ? BaseMatch::same : BaseMatch::unknown;
}

/// Takes out of `file` what it repeats of embedding and head: PEFT saves both, under every key they have, where one of
/// them is adapted or the vocabulary was resized. What differs from the model's, for the message.
std::string take_saved_embeddings(const StateDict& own, const Model& model, StateDict& file) {
  StateDict repeated;
  for (const Site* site : std::initializer_list<const Site*>{&model.embedding(), &model.lm_head()})
    for (const std::string& key : keys_of_saved_weight(site->path())) {
      if (!own.contains(key)) repeated.emplace(key, site->frozen().weight);
      if (const auto trained = file.find(key); trained != file.end() && own.contains(key))
        repeated.emplace(key_of_trained_copy(key), trained->second);
    }
  return take_base_tensors(repeated, file);
}

/// Gives the adapter a file that has just the tensors it would save.
void fill(const Adapter& adapter, const Model& model, StateDict file, const std::string& path) {
  try {
    file = adapter.add_derived_tensors(model, std::move(file));
  } catch (const InputError& error) {
    throw InputError(path + ": " + error.what());
  }
  const StateDict own = adapter.to_hf(model);
  std::string others = take_base_tensors(adapter.base_tensors_saved_by_hf(model), file);
  others += take_saved_embeddings(own, model, file);
  if (const std::string problems = describe_mismatch(own, file) + others; !problems.empty())
    throw InputError(path + " does not fit its adapter_config.json and this model:" + problems);
  adapter.from_hf(model, file);
}

/// The same of what only training needs, where the folder has it.
bool fill_training_state(const Adapter& adapter, const Model& model, const std::string& folder) {
  const StateDict own = adapter.encoder_state_dict(model);
  const std::filesystem::path path = std::filesystem::path(folder) / kTraining;
  if (own.empty()) return true;
  if (!std::filesystem::exists(path)) return false;
  const StateDict file = read_state(path.string());
  if (const std::string problems = describe_mismatch(own, file); !problems.empty())
    throw InputError(path.string() + " does not fit its adapter_config.json and this model:" + problems);
  const torch::NoGradGuard no_grad;
  for (const auto& [key, tensor] : own) Tensor(tensor).copy_(file.at(key));
  return true;
}

/// The names that begin so, without the beginning.
StateDict part_of(const StateDict& all, const std::string& beginning) {
  StateDict part;
  for (const auto& [name, tensor] : all)
    if (name.starts_with(beginning)) part.emplace(name.substr(beginning.size()), tensor);
  return part;
}

uint64_t bytes_of(const StateDict& state) {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : state) sum += tensor.nbytes();
  return sum;
}

/// Those tensors of the layers that no form in which the adapter is saved holds as they are.
StateDict unsaved_tensors(const Adapter& adapter, const Model& model) {
  const StateDict hf = adapter.to_hf(model), training = adapter.encoder_state_dict(model);
  std::unordered_set<const void*> saved;
  for (const StateDict* form : {&hf, &training})
    for (const auto& [key, tensor] : *form) saved.insert(tensor.unsafeGetTensorImpl());
  StateDict rest = adapter.tensors(model);
  std::erase_if(rest, [&](const auto& item) { return saved.contains(item.second.unsafeGetTensorImpl()); });
  return rest;
}

/// Copies a saved form into the tensors that are its own; what does not fit, for the message.
std::string restore_tensors(const StateDict& own, const StateDict& saved) {
  const torch::NoGradGuard no_grad;
  std::string problems = describe_mismatch(own, saved);
  if (!problems.empty()) return problems;
  for (const auto& [key, tensor] : own) {
    if (saved.at(key).scalar_type() != tensor.scalar_type())
      problems += "\n  " + printable(key) + " is " + c10::toString(saved.at(key).scalar_type()) + ", expected " +
                  c10::toString(tensor.scalar_type());
    Tensor(tensor).copy_(saved.at(key));
  }
  return problems;
}

/// The tokenizer, where it is not the base's.
void write_own_tokenizer(const Model& model, const std::string& folder) {
  const auto& base = model.origin().checkpoint;
  const AddedVocabulary* change = base != nullptr ? base->added() : nullptr;
  if (change != nullptr && (!change->tokens.empty() || change->own_config)) write_tokenizer(*base, folder);
}

void copy_whole(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::ifstream file(from, std::ios::binary);
  AtomicFile copy(to.string());
  std::vector<char> part(std::size_t{1} << 20);
  while (file.read(part.data(), static_cast<std::streamsize>(part.size())) || file.gcount() > 0)
    copy.write(part.data(), static_cast<std::size_t>(file.gcount()));
  if (!file.eof()) throw InputError(printable(from.string(), 4096) + ": cannot be read");
  copy.commit();
}

/// Whether the file was there. Throws ResourceError where it stays.
bool remove_file(const std::filesystem::path& path) {
  std::error_code error;
  const bool there = std::filesystem::remove(path, error);
  if (error) throw ResourceError(printable(path.string(), 4096) + ": cannot be removed: " + error.message());
  return there;
}

bool file_equals(const std::filesystem::path& path, const std::string& text) {
  std::ifstream file(path, std::ios::binary);
  return file && std::string(std::istreambuf_iterator<char>(file), {}) == text;
}

/// New weights never stand beside what belongs to an older adapter: its config, where it says something else than
/// `config`, its training state, its tokenizer. They go first. A folder of something else keeps its tokenizer.
void remove_stale_adapter_files(const std::filesystem::path& folder, const std::string& config) {
  std::error_code error;
  const bool of_adapter =
      std::filesystem::exists(folder / kWeights, error) || std::filesystem::exists(folder / kConfig, error);
  bool changed = !file_equals(folder / kConfig, config) && remove_file(folder / kConfig);
  changed = remove_file(folder / kTraining) || changed;
  if (of_adapter && !std::filesystem::exists(folder / "config.json", error))
    for (const std::string& name : tokenizer_files()) changed = remove_file(folder / name) || changed;
  if (changed && !sync_folder(folder.string()))
    throw ResourceError(printable(folder.string(), 4096) + " cannot be synced: " + std::strerror(errno));
}

}  // namespace

void write_state(const std::string& path, const StateDict& state, const std::map<std::string, std::string>& metadata) {
  std::vector<TensorInfo> forms;
  for (const auto& [name, tensor] : state)
    forms.push_back({name, stored_type(tensor.scalar_type()), tensor.sizes().vec()});
  SafetensorsWriter writer(path, std::move(forms), metadata);
  for (const TensorInfo& form : writer.tensors()) {
    const Tensor host = state.at(form.name).detach().cpu().contiguous();
    writer.write(host.data_ptr());
  }
  writer.commit();
}

StateDict read_state(const std::string& path) { return state_of(*SafetensorsFile::open(path)); }

namespace {

/// As the plugin gives it.
nlohmann::ordered_json config_of(const Adapter& adapter, const Model& model) {
  return call_plugin(adapter, "hf_config", [&] {
    nlohmann::ordered_json config = adapter.hf_config(model);
    TORCH_CHECK(config.is_object() || config.is_null(), "the config is no object");
    return config.is_null() ? nlohmann::ordered_json::object() : config;
  });
}

}  // namespace

std::string peft_type(const Adapter& adapter, const Model& model) {
  const auto config = config_of(adapter, model);
  const auto type = config.find("peft_type");
  return type != config.end() && type->is_string() ? type->get<std::string>() : "adapter";
}

void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model) {
  const std::filesystem::path in = folder;
  nlohmann::ordered_json config = config_of(adapter, model);
  StateDict state, training;
  call_plugin(adapter, "save", [&] {
    state = adapter.to_hf(model);
    state.merge(adapter.base_tensors_saved_by_hf(model));
    training = adapter.encoder_state_dict(model);
  });
  config["base_model_name_or_path"] = model.origin().path;
  if (!config.contains("task_type") || config["task_type"].is_null()) config["task_type"] = "CAUSAL_LM";
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  if (!model.origin().fingerprint.empty()) metadata[kFingerprint] = model.origin().fingerprint;
  // A path may be of any bytes.
  const std::string text = config.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  remove_stale_adapter_files(in, text);
  write_state((in / kWeights).string(), state, metadata);
  if (!training.empty()) write_state((in / kTraining).string(), training, metadata);
  write_own_tokenizer(model, folder);
  write_file((in / kConfig).string(), text);
}

void copy_adapter(const std::string& from, const std::string& to, const Model& model) {
  const std::filesystem::path source = from, target = to;
  remove_stale_adapter_files(target, read_text((source / kConfig).string()));
  copy_whole(source / kWeights, target / kWeights);
  if (std::filesystem::exists(source / kTraining)) copy_whole(source / kTraining, target / kTraining);
  write_own_tokenizer(model, to);
  copy_whole(source / kConfig, target / kConfig);
}

OpenedAdapter open_adapter(const std::string& folder, Plugins& plugins) {
  const std::string path = (std::filesystem::path(folder) / kConfig).string();
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
  const std::string path = (std::filesystem::path(folder) / kWeights).string();
  const auto file = SafetensorsFile::open(path);
  const BaseMatch base = check_base(*file, model, any_base);
  const MemoryScope scope(MemoryComponent::adapter);
  call_plugin(adapter, "load", [&] {
    fill(adapter, model, state_of(*file), path);
    adapter.on_weights_loaded(fill_training_state(adapter, model, folder));
  });
  return base;
}

void save_adapter_state(const std::string& folder, const Adapter& adapter, const Model& model) {
  StateDict all;
  call_plugin(adapter, "state", [&] {
    for (const auto& [name, tensor] : unsaved_tensors(adapter, model)) all.emplace(kOfLayers + name, tensor);
    for (const auto& [name, tensor] : adapter.state_dict()) all.emplace(kOfMethod + name, tensor);
  });
  if (!all.empty()) write_state((std::filesystem::path(folder) / kState).string(), all, {});
}

uint64_t checkpoint_bytes(const Adapter& adapter, const Model& model) {
  return call_plugin(adapter, "state", [&] {
    return bytes_of(adapter.to_hf(model)) + bytes_of(adapter.base_tensors_saved_by_hf(model)) +
           bytes_of(adapter.encoder_state_dict(model)) + bytes_of(unsaved_tensors(adapter, model)) +
           bytes_of(adapter.state_dict());
  });
}

void resume_adapter(const std::string& folder, Adapter& adapter, Model& model, torch::Dtype dtype) {
  const std::filesystem::path in = folder;
  const auto optional_state = [&](const char* name) {
    return std::filesystem::exists(in / name) ? read_state((in / name).string()) : StateDict{};
  };
  const auto file = SafetensorsFile::open((in / kWeights).string());
  check_base(*file, model, false);
  const StateDict all = optional_state(kState);
  const StateDict training = optional_state(kTraining);
  adapter.skip_init();
  std::string problems;
  call_plugin(adapter, "load", [&] {
    adapter.load(part_of(all, kOfMethod));
    adapter.attach(model, dtype);
    const MemoryScope scope(MemoryComponent::adapter);
    StateDict hf = state_of(*file);
    for (const auto& [key, tensor] : adapter.base_tensors_saved_by_hf(model)) hf.erase(key);
    problems = restore_tensors(adapter.to_hf(model), hf) +
               restore_tensors(adapter.encoder_state_dict(model), training) +
               restore_tensors(unsaved_tensors(adapter, model), part_of(all, kOfLayers));
  });
  if (!problems.empty())
    throw InputError(printable(folder, 4096) + " does not hold the adapter of this experiment:" + problems);
}

LoadedAdapter load_adapter(const std::string& folder, Plugins& plugins, Model& model, torch::Dtype dtype,
                           bool any_base) {
  LoadedAdapter loaded{open_adapter(folder, plugins).adapter, BaseMatch::unknown};
  try {
    call_plugin(*loaded.adapter, "attach", [&] { loaded.adapter->attach(model, dtype); });
  } catch (const ConfigError& error) {  // here the options are the file's
    throw InputError((std::filesystem::path(folder) / kConfig).string() + ": " + error.what());
  }
  loaded.base = load_adapter_weights(folder, *loaded.adapter, model, any_base);
  return loaded;
}

}  // namespace peft

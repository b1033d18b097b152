#include "peft/adapters/adapter_state.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <filesystem>
#include <unordered_set>

#include "adapters/adapter_folder.h"
#include "adapters/base_match.h"
#include "peft/adapters/encoder_state.h"
#include "peft/adapters/hf_format.h"
#include "peft/base/error.h"
#include "peft/files/safetensors.h"
#include "peft/runtime/memory.h"
#include "peft/runtime/state_dict_file.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

/// Prefixes of the keys in adapter_state.safetensors: tensors of layers, and the method's state dict.
constexpr const char *kLayers = "layers:", *kMethod = "method:";

/// The entries of `state` whose key starts with `prefix`, without it.
StateDict with_prefix(const StateDict& state, const std::string& prefix) {
  StateDict part;
  for (const auto& [name, tensor] : state)
    if (name.starts_with(prefix)) part.emplace(name.substr(prefix.size()), tensor);
  return part;
}

uint64_t bytes_of(const StateDict& state) {
  uint64_t sum = 0;
  for (const auto& [name, tensor] : state) sum += tensor.nbytes();
  return sum;
}

StateDict encoder_state_dict(const Adapter& adapter, const Model& model) {
  const EncoderState* encoder = adapter.encoder_state();
  return encoder != nullptr ? encoder->encoder_state_dict(model) : StateDict{};
}

/// The layers' tensors that are not themselves in the adapter's other files.
StateDict unsaved_tensors(const Adapter& adapter, const Model& model) {
  const StateDict weights = adapter.hf_format().to_hf(model), encoder = encoder_state_dict(adapter, model);
  std::unordered_set<const void*> saved;
  for (const StateDict* file : {&weights, &encoder})
    for (const auto& [key, tensor] : *file) saved.insert(tensor.unsafeGetTensorImpl());
  StateDict unsaved = adapter.all_tensors(model);
  std::erase_if(unsaved, [&](const auto& item) { return saved.contains(item.second.unsafeGetTensorImpl()); });
  return unsaved;
}

/// Copies `saved` into `tensors`. Returns what does not fit, a line each.
std::string restore_tensors(const StateDict& tensors, const StateDict& saved) {
  const torch::NoGradGuard no_grad;
  std::string problems = describe_mismatch(tensors, saved);
  if (!problems.empty()) return problems;
  for (const auto& [key, tensor] : tensors) {
    if (saved.at(key).scalar_type() != tensor.scalar_type())
      problems += "\n  " + printable(key) + " is " + c10::toString(saved.at(key).scalar_type()) + ", expected " +
                  c10::toString(tensor.scalar_type());
    tensor.copy_(saved.at(key));
  }
  return problems;
}

}  // namespace

void save_adapter_state(const std::string& folder, const Adapter& adapter, const Model& model) {
  StateDict all;
  for (const auto& [name, tensor] : unsaved_tensors(adapter, model)) all.emplace(kLayers + name, tensor);
  for (const auto& [name, tensor] : adapter.state_dict()) all.emplace(kMethod + name, tensor);
  if (!all.empty()) write_state((fs::path(folder) / kAdapterState).string(), all, {});
}

uint64_t checkpoint_bytes(const Adapter& adapter, const Model& model) {
  const HfFormat& format = adapter.hf_format();
  return bytes_of(format.to_hf(model)) + bytes_of(format.base_tensors(model)) +
         bytes_of(encoder_state_dict(adapter, model)) + bytes_of(unsaved_tensors(adapter, model)) +
         bytes_of(adapter.state_dict());
}

void resume_adapter(const std::string& folder, Adapter& adapter, Model& model, torch::Dtype dtype) {
  const fs::path path = folder;
  const auto read_if_exists = [&](const char* name) {
    return fs::exists(path / name) ? read_state((path / name).string()) : StateDict{};
  };
  const auto file = SafetensorsFile::open((path / kAdapterWeights).string());
  check_base(*file, model, false);
  const StateDict state = read_if_exists(kAdapterState);
  const StateDict encoder = read_if_exists(kEncoderState);
  adapter.skip_init();
  adapter.load_state_dict(with_prefix(state, kMethod));
  adapter.attach(model, dtype);
  const MemoryScope scope(MemoryComponent::adapter);
  const HfFormat& format = adapter.hf_format();
  const StateDict weights = without_base_tensors(read_state(*file), format.base_tensors(model));
  const std::string problems = restore_tensors(format.to_hf(model), weights) +
                               restore_tensors(encoder_state_dict(adapter, model), encoder) +
                               restore_tensors(unsaved_tensors(adapter, model), with_prefix(state, kLayers));
  if (!problems.empty())
    throw InputError(printable_path(folder) + " does not contain the adapter of this experiment:" + problems);
}

}  // namespace peft

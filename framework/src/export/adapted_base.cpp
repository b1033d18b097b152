#include "export/adapted_base.h"

#include <torch/types.h>

#include <algorithm>
#include <filesystem>
#include <map>

#include "peft/adapters/adapter_vocabulary.h"
#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "runtime/stored_types.h"

namespace peft {

namespace fs = std::filesystem;

StoredType main_type(const std::vector<TensorInfo>& tensors) {
  std::map<StoredType, uint64_t> elements;
  for (const TensorInfo& tensor : tensors) {
    uint64_t count = 1;
    for (const int64_t size : tensor.shape) count *= static_cast<uint64_t>(size);
    if (tensor.type < StoredType::i64 || tensor.type > StoredType::boolean) elements[tensor.type] += count;
  }
  const auto largest = std::ranges::max_element(elements, {}, [](const auto& item) { return item.second; });
  return largest == elements.end() ? StoredType::f32 : largest->first;
}

namespace {

/// The dtype in which most of the files' tensors can be mapped.
torch::Dtype dtype_to_load(const PretrainedModel& files) {
  std::vector<TensorInfo> tensors;
  for (const StoredTensor& tensor : files.tensors()) tensors.push_back({tensor.name, tensor.type, tensor.shape});
  const StoredType type = main_type(tensors);
  const bool mappable = type == StoredType::f32 || type == StoredType::f16 || type == StoredType::bf16;
  return mappable && fs::is_directory(files.path()) ? *torch_type(type) : torch::kBFloat16;
}

}  // namespace

AdaptedBase load_adapted_base(const AdaptedModelOptions& options, Plugins& plugins) {
  AdaptedBase base;
  const auto files = open_pretrained(options.model, {.ignore_unknown = options.ignore_unknown});
  base.checkpoint = base_with_vocabulary(files, adapter_tokenizer_changes(*files, options.adapters), options.adapters);
  base.notes.model = open_notes(*files);
  // Only to attach the adapters: the weights that are written are read from the file.
  base.model = load_model(base.checkpoint, dtype_to_load(*files), torch::kCPU);
  const LoadAdapterOptions how{.any_base = options.any_base, .ignore_unknown = options.ignore_unknown};
  for (const std::string& folder : options.adapters) {
    LoadedAdapter loaded = load_adapter(folder, plugins, *base.model, torch::kFloat, how);
    base.notes.adapters.insert(base.notes.adapters.end(), loaded.notes.begin(), loaded.notes.end());
    base.adapters.push_back(std::move(loaded.adapter));
  }
  base.model->eval();
  return base;
}

std::string require_absent(const std::string& output) {
  fs::path path = fs::path(output).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  std::error_code error;
  if (fs::exists(path, error)) throw ConfigError(printable_path(output) + " already exists; choose another output");
  return path.string();
}

}  // namespace peft

#include "export/adapted_base.h"

#include <torch/types.h>

#include <filesystem>

#include "peft/adapters/adapter_vocabulary.h"
#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "runtime/stored_types.h"

namespace peft {

namespace fs = std::filesystem;

AdaptedBase load_adapted_base(const std::string& path, const StringList& adapters, bool any_base, Plugins& plugins) {
  AdaptedBase base;
  const auto files = open_pretrained(path);
  base.checkpoint = base_with_vocabulary(files, adapter_tokenizer_changes(*files, adapters), adapters);
  // Only to attach the adapters: the weights that are written are read from the file.
  const auto config = decoder_config(base.checkpoint->config(), base.checkpoint->path());
  const auto as_stored = fs::is_directory(path) ? named_type(config.torch_dtype) : std::nullopt;
  base.model = load_model(base.checkpoint, as_stored.value_or(torch::kBFloat16), torch::kCPU);
  for (const std::string& folder : adapters) {
    LoadedAdapter loaded = load_adapter(folder, plugins, *base.model, torch::kFloat, any_base);
    if (loaded.base == BaseMatch::unknown) base.unknown_bases.push_back(folder);
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

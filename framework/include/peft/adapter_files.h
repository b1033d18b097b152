#pragma once

#include <memory>
#include <string>

#include "peft/adapter.h"
#include "peft/export.h"
#include "peft/plugin.h"

namespace peft {

/// Writes `adapter_config.json` and `adapter_model.safetensors` as HF PEFT does, into a folder that exists; each file
/// appears whole or not at all. `base_model` becomes base_model_name_or_path.
PEFT_API void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model,
                           const std::string& base_model);

/// Reads such a folder, made here or by HF PEFT: the plugin named like its peft_type is attached to `model` and filled.
/// Throws InputError where keys are missing, unexpected or of a wrong shape (all are listed), or values not finite.
PEFT_API std::unique_ptr<Adapter> load_adapter(const std::string& folder, Plugins& plugins, Model& model,
                                               torch::Dtype dtype);

/// The tensors as a safetensors file, and such a file as tensors (copies, on the CPU).
PEFT_API void write_state(const std::string& path, const State& state,
                          const std::map<std::string, std::string>& metadata);
PEFT_API State read_state(const std::string& path);

}  // namespace peft

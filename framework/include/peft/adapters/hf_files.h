#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/adapters/adapter.h"
#include "peft/base/export.h"
#include "peft/plugin/plugins.h"

namespace peft {

/// Writes `adapter_config.json` and `adapter_model.safetensors` as HF PEFT does, `adapter_training.safetensors` if the
/// adapter has an encoder's state (EncoderState), and the tokenizer if it differs from the base's. `folder` must exist;
/// each file is written atomically. The model's origin becomes base_model_name_or_path and, in the safetensors
/// metadata, `base_fingerprint`.
PEFT_API void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model);
/// The method's peft_type in adapter_config.json, such as "LORA"; "adapter" if it has none.
PEFT_API std::string peft_type(const Adapter& adapter, const Model& model);
/// Copies the files that save_adapter() wrote for this model to another folder that exists, in the same order and
/// equally atomically. Throws InputError if they cannot be read.
PEFT_API void copy_adapter(const std::string& from, const std::string& to, const Model& model);

struct OpenedAdapter {
  std::unique_ptr<Adapter> adapter;
  std::string plugin;  ///< name of the plugin
};
/// Makes the adapter that the folder's `adapter_config.json` describes, with the plugin named like its peft_type. The
/// folder was written by this library or by HF PEFT. Nothing is attached yet. Throws InputError if the config is not an
/// adapter's, or has options that the plugin does not know.
PEFT_API OpenedAdapter open_adapter(const std::string& folder, Plugins& plugins);
/// The same for the contents of an adapter_config.json; `where`: its source, for messages.
PEFT_API OpenedAdapter open_adapter(const nlohmann::json& config, const std::string& where, Plugins& plugins);

/// Whether a file's fingerprint is that of the model's base; unknown if either has none.
enum class BaseMatch { same, unknown };

/// Loads the folder's tensors into an attached adapter, including the encoder's state if it is there. Throws InputError
/// if keys are missing or unexpected or shapes are wrong (all are listed), if values are not finite, or if the file's
/// fingerprint is another base's, unless `any_base`.
PEFT_API BaseMatch load_adapter_weights(const std::string& folder, Adapter& adapter, const Model& model, bool any_base);

struct LoadedAdapter {
  std::unique_ptr<Adapter> adapter;
  BaseMatch base;
};
/// open_adapter(), Adapter::attach(), load_adapter_weights().
PEFT_API LoadedAdapter load_adapter(const std::string& folder, Plugins& plugins, Model& model, torch::Dtype dtype,
                                    bool any_base = false);

}  // namespace peft

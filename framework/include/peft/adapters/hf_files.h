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
/// each file is written atomically. PretrainedModel::base_name becomes base_model_name_or_path, and the model's
/// fingerprint `base_fingerprint` in the safetensors metadata. Throws InputError, before anything is written, for a
/// number in the config that is not finite, which JSON cannot hold.
PEFT_API void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model);
/// The method's peft_type in adapter_config.json, such as "LORA"; "adapter" if it has none.
PEFT_API std::string peft_type(const Adapter& adapter, const Model& model);
/// Copies the files that save_adapter() wrote for this model to another folder that exists, in the same order and
/// equally atomically. Throws InputError if they cannot be read.
PEFT_API void copy_adapter(const std::string& from, const std::string& to, const Model& model);

struct OpenedAdapter {
  std::unique_ptr<Adapter> adapter;
  std::string plugin;     ///< name of the plugin
  StringList notes = {};  ///< what of the config was left out, a line each
};
/// Makes the adapter that the folder's `adapter_config.json` describes, with the plugin named like its peft_type. The
/// folder was written by this library or by HF PEFT. Nothing is attached yet. A name or pattern in the config that
/// matches no module of the model is ignored when the adapter is attached, and an initialization that is not
/// implemented does not matter: the file's tensors decide. Throws InputError if the config is not an adapter's, or has
/// options that the plugin does not know, unless `ignore_unknown`.
PEFT_API OpenedAdapter open_adapter(const std::string& folder, Plugins& plugins, bool ignore_unknown = false);
/// The same for the contents of an adapter_config.json; `where`: its source, for messages.
PEFT_API OpenedAdapter open_adapter(const nlohmann::json& config, const std::string& where, Plugins& plugins,
                                    bool ignore_unknown = false);

/// Whether a file's fingerprint is that of the model's base; unknown if either has none.
enum class BaseMatch { same, unknown };

/// Loads the folder's tensors into an attached adapter, including the encoder's state if it is there. Throws InputError
/// if keys are missing or unexpected or shapes are wrong (all are listed), if values are not finite, or if the file's
/// fingerprint is another base's, unless `any_base`.
PEFT_API BaseMatch load_adapter_weights(const std::string& folder, Adapter& adapter, const Model& model, bool any_base);

struct LoadAdapterOptions {
  bool any_base = false;        ///< as load_adapter_weights()
  bool ignore_unknown = false;  ///< as open_adapter()
};
struct LoadedAdapter {
  std::unique_ptr<Adapter> adapter;
  BaseMatch base;
  StringList notes = {};  ///< of open_adapter(), and one if the base is unknown
};
/// open_adapter(), Adapter::attach(), load_adapter_weights().
PEFT_API LoadedAdapter load_adapter(const std::string& folder, Plugins& plugins, Model& model, torch::Dtype dtype,
                                    const LoadAdapterOptions& options = {});

}  // namespace peft

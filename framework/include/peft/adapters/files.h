#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"
#include "peft/plugin/plugins.h"
#include "peft/pretrained/vocabulary_overlay.h"

namespace peft {

/// Writes `adapter_config.json` and `adapter_model.safetensors` as HF PEFT does, into a folder that exists, and
/// `adapter_training.safetensors` where Adapter::encoder_state_dict has something, and the tokenizer where the model's
/// is not its base's; each file appears whole or not at all. The model's origin becomes base_model_name_or_path and, in
/// the safetensors metadata, `base_fingerprint`.
PEFT_API void save_adapter(const std::string& folder, const Adapter& adapter, const Model& model);
/// The method's name in such a config, "LORA"; "adapter" where it has none.
PEFT_API std::string peft_type(const Adapter& adapter, const Model& model);

/// Copies what save_adapter wrote of this model into another folder that exists, with its order and its promise. Throws
/// InputError where it cannot be read.
PEFT_API void copy_adapter(const std::string& from, const std::string& to, const Model& model);
/// What the tokenizers saved beside adapters have that the base's has not: tokens after its own, another chat template,
/// other tokens at the beginning and the end. Throws InputError where two folders have others.
PEFT_API VocabularyOverlay adapter_tokenizer_changes(const PretrainedModel& base, const StringList& folders);
/// The base as these adapters know it: with this change, and with embedding and head of the length and, beyond the
/// base's own, of the rows that they were saved with. Throws InputError where two folders disagree.
PEFT_API std::shared_ptr<const PretrainedModel> base_with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                                     VocabularyOverlay change,
                                                                     const StringList& folders);

/// What a folder's file says about the base that it was trained on.
enum class BaseMatch { same, unknown };

struct OpenedAdapter {
  std::unique_ptr<Adapter> adapter;
  std::string plugin;  ///< its name
};
/// The plugin named like the folder's peft_type, with its options; made here or by HF PEFT. Nothing is attached yet.
/// Throws InputError for what is no adapter, or asks for what the plugin does not know.
PEFT_API OpenedAdapter open_adapter(const std::string& folder, Plugins& plugins);
/// The same of what an adapter_config.json holds; `where` it is from, for messages.
PEFT_API OpenedAdapter open_adapter(const nlohmann::json& config, const std::string& where, Plugins& plugins);

/// Fills an attached adapter from the folder's tensors, those that only training needs where they are there. Throws
/// InputError where keys are missing, unexpected or of a wrong shape (all are listed), values are not finite, or the
/// file names another base than `model` has, unless `any_base`.
PEFT_API BaseMatch load_adapter_weights(const std::string& folder, Adapter& adapter, const Model& model, bool any_base);

/// Writes `adapter_state.safetensors` beside save_adapter's files: what a run needs to go on and they do not hold, or
/// hold in another form than trains. No file, where there is nothing.
PEFT_API void save_adapter_state(const std::string& folder, const Adapter& adapter, const Model& model);
/// Bytes of the tensors in the files of both.
PEFT_API uint64_t checkpoint_bytes(const Adapter& adapter, const Model& model);

/// Attaches an adapter that was just made as it was when save_adapter and save_adapter_state wrote the folder, to the
/// bit. Throws InputError where the folder does not hold just that, or names another base than `model` has.
PEFT_API void resume_adapter(const std::string& folder, Adapter& adapter, Model& model, torch::Dtype dtype);

/// open_adapter, attach, load_adapter_weights.
struct LoadedAdapter {
  std::unique_ptr<Adapter> adapter;
  BaseMatch base;
};
PEFT_API LoadedAdapter load_adapter(const std::string& folder, Plugins& plugins, Model& model, torch::Dtype dtype,
                                    bool any_base = false);

/// The tensors as a safetensors file, and such a file as tensors (copies, on the CPU).
PEFT_API void write_state(const std::string& path, const StateDict& state,
                          const std::map<std::string, std::string>& metadata);
PEFT_API StateDict read_state(const std::string& path);

}  // namespace peft

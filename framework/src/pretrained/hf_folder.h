#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/pretrained/open.h"

namespace peft {

/// Opens a Hugging Face folder: config.json, model.safetensors or an index with its shards, and the tokenizer's files.
/// Throws InputError.
std::shared_ptr<const PretrainedModel> open_hf_folder(const std::string& path, const OpenOptions& options);

/// Reads tokenizer_config.json of a folder, with the contents of chat_template.jinja as its `chat_template`. Returns an
/// empty object if neither exists. Throws InputError.
nlohmann::json read_tokenizer_config(const std::string& folder);

}  // namespace peft

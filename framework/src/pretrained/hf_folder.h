#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace peft {

class PretrainedModel;

/// A Hugging Face folder: config.json, model.safetensors or an index with its shards, and what the tokenizer needs.
std::shared_ptr<const PretrainedModel> open_hf_folder(const std::string& path);

/// tokenizer_config.json of any folder, with what chat_template.jinja says as its `chat_template`; an empty object
/// where there is neither. Throws InputError.
nlohmann::json read_tokenizer_config(const std::string& folder);

}  // namespace peft

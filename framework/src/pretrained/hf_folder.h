#pragma once

#include <memory>
#include <string>

namespace peft {

class PretrainedModel;

/// Opens a Hugging Face folder: config.json, model.safetensors or an index with its shards, and the tokenizer's files.
/// Throws InputError.
std::shared_ptr<const PretrainedModel> open_hf_folder(const std::string& path);

}  // namespace peft

#pragma once

#include <memory>
#include <string>

#include "peft/pretrained/open.h"

namespace peft {

/// Opens a Hugging Face folder: config.json, model.safetensors or an index with its shards, and the tokenizer's files.
/// Throws InputError.
std::shared_ptr<const PretrainedModel> open_hf_folder(const std::string& path, const OpenOptions& options);

}  // namespace peft

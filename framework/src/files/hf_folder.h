#pragma once

#include <memory>
#include <string>

namespace peft {

class Checkpoint;

/// A Hugging Face folder: config.json, model.safetensors or an index with its shards, and what the tokenizer needs.
std::shared_ptr<const Checkpoint> open_hf_folder(const std::string& path);

}  // namespace peft

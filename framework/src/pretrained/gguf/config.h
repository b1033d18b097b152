#pragma once

#include <nlohmann/json.hpp>

#include "pretrained/gguf/file.h"

namespace peft {

/// Converts the metadata to a config.json of LlamaConfig. Throws InputError for another architecture, for a `llama.*`
/// key that is missing or malformed, for an unknown one, which could change the computation, and for a part of a split
/// model.
nlohmann::json config_of_gguf(const GgufFile& gguf);

/// Converts the metadata to a tokenizer_config.json with the chat template and the special tokens.
nlohmann::json tokenizer_config_of_gguf(const GgufFile& gguf);

/// Converts the metadata to a generation_config.json with all EOS tokens; the first is the model's `eos`.
nlohmann::json generation_config_of_gguf(const GgufFile& gguf);

}  // namespace peft

#pragma once

#include <nlohmann/json.hpp>

#include "pretrained/gguf/file.h"

namespace peft {

/// config.json in LlamaConfig's fields. Throws InputError for another architecture, for a `llama.*` key that is
/// missing, malformed or not known here (it could change the mathematics), and for parts of a split model.
nlohmann::json config_of_gguf(const GgufFile& gguf);

/// tokenizer_config.json: the chat template and the special tokens' texts.
nlohmann::json tokenizer_config_of_gguf(const GgufFile& gguf);

/// generation_config.json: every token that ends a text, the model's own first.
nlohmann::json generation_config_of_gguf(const GgufFile& gguf);

}  // namespace peft

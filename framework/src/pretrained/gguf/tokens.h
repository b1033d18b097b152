#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "pretrained/gguf/writer.h"

namespace peft {

/// The `tokenizer.*` pairs of a GGUF file. For byte-level BPE they are those of llama.cpp's convert_hf_to_gguf.py; for
/// SentencePiece-like BPE the merges become scores. `tokenizer`, `config` and `model` are tokenizer.json,
/// tokenizer_config.json and config.json, whose ids of special tokens are used if tokenizer_config.json has none.
/// `name` is the model's path in messages. Throws InputError for a tokenizer that llama.cpp would read differently.
GgufPairs gguf_pairs_of_tokenizer(const nlohmann::json& tokenizer, const nlohmann::json& config,
                                  const nlohmann::json& model, int64_t vocab_size, const std::string& name);

}  // namespace peft

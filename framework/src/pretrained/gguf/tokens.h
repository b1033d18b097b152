#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "pretrained/gguf/writer.h"

namespace peft {

/// `tokenizer.*` of a GGUF file for the tokenizer.json and tokenizer_config.json of a model with `vocab_size` rows: as
/// llama.cpp's convert_hf_to_gguf.py writes it for byte-level BPE; a SentencePiece-like BPE gets its merges as scores.
/// `name` stands in messages. Throws InputError for a tokenizer that llama.cpp would not read the same.
/// `model`: config.json, which may name special tokens that tokenizer_config.json does not.
GgufPairs gguf_pairs_of_tokenizer(const nlohmann::json& tokenizer, const nlohmann::json& config,
                                  const nlohmann::json& model, int64_t vocab_size, const std::string& name);

}  // namespace peft

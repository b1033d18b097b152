#pragma once

#include <nlohmann/json.hpp>

#include "pretrained/gguf/file.h"

namespace peft {

/// Converts the metadata to a config.json of LlamaConfig. Throws InputError for another architecture, for a `llama.*`
/// key that is missing or malformed, for unknown ones, which could change the computation, unless `ignore_unknown`, and
/// for a part of a split model.
nlohmann::json config_of_gguf(const GgufFile& gguf, bool ignore_unknown = false);
/// The `llama.*` keys that are not known.
std::vector<std::string> unknown_keys_of_gguf(const GgufFile& gguf);

/// The Hugging Face repository, "org/name", of the weights that the file holds, if its metadata say so; else "". A
/// repository that they were fine-tuned from is not it.
std::string repository_of_gguf(const GgufFile& gguf);

/// Converts the metadata to a tokenizer_config.json with the chat template and the special tokens.
nlohmann::json tokenizer_config_of_gguf(const GgufFile& gguf);

/// Converts the metadata to a generation_config.json with all EOS tokens; the first is the model's `eos`.
nlohmann::json generation_config_of_gguf(const GgufFile& gguf);

}  // namespace peft

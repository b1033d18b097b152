#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// Converts the vocabulary of a GGUF file to the text of an equivalent tokenizer.json, with the ids of the model's
/// original tokenizer. (transformers ignores `tokenizer.ggml.pre` and so gives other ids for two spaces before a digit
/// in SmolLM2.) `metadata` is an object of the file's key/value pairs, of which only `tokenizer.ggml.*` is read; `name`
/// is used as the file name in messages. Throws InputError for missing or malformed values, and for a model or
/// pre-tokenizer that is not implemented.
PEFT_API std::string tokenizer_json_from_gguf(const nlohmann::json& metadata, const std::string& name);

}  // namespace peft

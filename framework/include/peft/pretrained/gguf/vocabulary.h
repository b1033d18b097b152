#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "peft/base/export.h"

namespace peft {

/// The text of a tokenizer.json equivalent to the vocabulary inside a GGUF file, with the ids of the model's original
/// tokenizer. (transformers' reading of the same file differs where it ignores `tokenizer.ggml.pre`: two spaces before
/// a digit in SmolLM2.) `metadata`: an object of the file's key/value pairs (arrays as JSON arrays, numbers as
/// numbers), of which only `tokenizer.ggml.*` is read. `name` stands in messages for the file. Throws InputError for
/// what is missing or malformed, and names a model or pre-tokenizer that is not implemented.
PEFT_API std::string tokenizer_json_from_gguf(const nlohmann::json& metadata, const std::string& name);

}  // namespace peft

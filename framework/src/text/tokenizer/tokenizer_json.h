#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace peft::text {

/// Parses the text of a tokenizer.json: strict JSON of at most 64 levels. Throws InputError with line and column;
/// `name` is used as the file name in messages.
nlohmann::json parse_tokenizer_json(const std::string& text, const std::string& name);

/// The file that messages about a model's tokenizer name: that of a folder, or the GGUF file.
std::string tokenizer_name(const std::string& model_path);
/// The file that messages about its configuration name.
std::string tokenizer_config_name(const std::string& model_path);

}  // namespace peft::text

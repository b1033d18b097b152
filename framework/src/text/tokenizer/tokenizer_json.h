#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace peft::text {

/// Parses the text of a tokenizer.json: strict JSON of at most 64 levels. Throws InputError with line and column;
/// `name` is used as the file name in messages.
nlohmann::json parse_tokenizer_json(const std::string& text, const std::string& name);

}  // namespace peft::text

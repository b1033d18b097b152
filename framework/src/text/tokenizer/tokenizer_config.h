#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace peft::text {

// Fields of a tokenizer_config.json; `path` stands in messages for the model. Both throw InputError for another type.

/// A special token: a string, or an object with `content`; "" if it is not set.
std::string special_token(const nlohmann::json& config, const std::string& key, const std::string& path);

/// The chat template, or of a list of named ones the one called default; "" if there is none.
std::string template_source(const nlohmann::json& config, const std::string& path);

}  // namespace peft::text

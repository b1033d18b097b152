#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

namespace peft::text {

// Read members of a tokenizer_config.json. `path` is the path of the model in messages. Throw InputError for a wrong
// type.

/// A special token: a string, or an object with `content`; "" if it is not set.
std::string special_token(const nlohmann::json& config, const std::string& key, const std::string& path);

/// The chat template, or the one named "default" in a list of templates; "" if there is none.
std::string template_source(const nlohmann::json& config, const std::string& path);

}  // namespace peft::text

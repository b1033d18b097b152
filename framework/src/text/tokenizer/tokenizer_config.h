#pragma once

#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace peft::text {

// Read members of a tokenizer_config.json. `name` is the file's name in messages. Throw InputError for a wrong type.

/// A special token: a string, or an object with `content`; "" if it is not set.
std::string special_token(const nlohmann::json& config, const std::string& key, const std::string& name);

/// The keys of special tokens that are set: those that every tokenizer of transformers has, then other keys that end in
/// "_token".
std::vector<std::string> special_token_keys(const nlohmann::json& config);
/// The special tokens by their names, as transformers passes them to chat templates.
std::map<std::string, std::string> special_tokens(const nlohmann::json& config, const std::string& name);

/// The chat templates by their names; one without a name is "default".
std::map<std::string, std::string> named_templates(const nlohmann::json& config, const std::string& name);
/// Their names for a message: "'default', 'tool_use'", or "none".
std::string listed_names(const std::map<std::string, std::string>& templates);
/// The template "default"; "" if there is no template at all. Throws InputError if there are others only.
std::string template_source(const nlohmann::json& config, const std::string& name);

}  // namespace peft::text

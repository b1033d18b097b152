#pragma once
// The files of a folder from which transformers' AutoTokenizer reads a tokenizer and its chat templates.

#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace peft {

inline constexpr const char* kTemplateFile = "chat_template.jinja";
inline constexpr const char* kTemplateFolder = "additional_chat_templates";

/// Also true for a file that cannot be read or a broken link, so that reading it reports the reason.
bool is_present(const std::filesystem::path& path);
/// Reads an object; empty if the file does not exist.
nlohmann::json read_optional_object(const std::string& file);

/// The named templates in additional_chat_templates, ordered by name.
std::vector<std::filesystem::path> additional_templates(const std::string& folder);

/// Reads tokenizer_config.json, with the templates of chat_template.jinja and additional_chat_templates as its
/// `chat_template`, and, if it has no `added_tokens_decoder`, the tokens of special_tokens_map.json. An empty object if
/// there are no such files. Throws InputError, also if two files name different tokens.
nlohmann::json read_tokenizer_config(const std::string& folder);

/// Reads tokenizer.json, with the added tokens that the configuration, special_tokens_map.json and added_tokens.json
/// name and it does not. Throws InputError if they contradict each other.
std::string read_tokenizer_json(const std::string& folder, const nlohmann::json& tokenizer_config);

/// The bytes that identify what read_tokenizer_json() returns, together with the configuration.
std::string read_tokenizer_bytes(const std::string& folder);

}  // namespace peft

#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace peft::text {

/// GPT-2's byte-level alphabet: every byte is one printable character.
std::string bytes_to_alphabet(std::string_view bytes);
/// The bytes; nothing if a character is not of the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);

/// GPT-2's pattern, used by ByteLevel with use_regex.
extern const char* const gpt2_expression;

}  // namespace peft::text

#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace peft::text {

/// Encodes bytes in GPT-2's byte-level alphabet, which has a printable character for each byte.
std::string bytes_to_alphabet(std::string_view bytes);
/// Decodes them; nullopt if a character is not in the alphabet.
std::optional<std::string> alphabet_to_bytes(std::string_view text);

/// GPT-2's regular expression, which ByteLevel uses if `use_regex` is true.
extern const char* const kGpt2Pattern;

}  // namespace peft::text

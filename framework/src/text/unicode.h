#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace peft::text {

/// Offset of the first byte that is not well-formed UTF-8; npos if there is none.
std::size_t find_bad_utf8(std::string_view text);
/// Replaces each maximal ill-formed subsequence by U+FFFD, as Rust's from_utf8_lossy does.
std::string replace_bad_utf8(std::string_view bytes);

/// Length in bytes of the character that starts with the byte `lead`, in well-formed UTF-8.
std::size_t char_length(char lead);
/// The character at byte `at`, in well-formed UTF-8.
char32_t char_at(std::string_view text, std::size_t at);
void append_char(std::string& text, char32_t c);

bool is_space(char32_t c);        ///< White_Space
bool is_numeric(char32_t c);      ///< general category N
bool is_punctuation(char32_t c);  ///< ASCII punctuation or general category P
bool is_word(char32_t c);         ///< \w of regular expressions

enum class NormalForm { nfc, nfd, nfkc, nfkd };
std::string normalize(std::string text, NormalForm form);
std::string lowercase(std::string_view text);

}  // namespace peft::text

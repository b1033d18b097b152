#include "text/tokenizer/byte_level.h"

#include <array>

#include "text/unicode.h"

namespace peft::text {

const char* const kGpt2Pattern = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

namespace {

struct Alphabet {
  std::array<std::string, 256> char_of_byte;
  std::array<int, 512> byte_of_char;

  Alphabet() {
    byte_of_char.fill(-1);
    char32_t next_free = 256;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable = (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      const char32_t c = printable ? b : next_free++;
      append_char(char_of_byte[b], c);
      byte_of_char[c] = static_cast<int>(b);
    }
  }
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

std::string bytes_to_alphabet(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) out += alphabet().char_of_byte[static_cast<unsigned char>(c)];
  return out;
}

std::optional<std::string> alphabet_to_bytes(std::string_view text) {
  std::string out;
  for (std::size_t at = 0; at < text.size(); at += char_length(text[at])) {
    const char32_t c = char_at(text, at);
    if (c >= alphabet().byte_of_char.size() || alphabet().byte_of_char[c] < 0) return std::nullopt;
    out += static_cast<char>(alphabet().byte_of_char[c]);
  }
  return out;
}

}  // namespace peft::text

#include "bytes.h"

#include <algorithm>
#include <cstring>

namespace peft::fuzz {

uint64_t nasty_number(Random& random, uint64_t size) {
  static constexpr uint64_t edges[] = {
      0,          1,          2,          16,         32,         64,         127,        128,      255,
      256,        4096,       65535,      65536,      1u << 24,   1u << 30,   0x7FFFFFFF, 1u << 31, 0xFFFFFFFF,
      1ull << 32, 1ull << 40, 1ull << 53, 1ull << 61, 1ull << 62, 1ull << 63, ~0ull};
  const uint64_t number = random.one_in(4) ? size : random.pick(edges);
  return number + random.below(7) - 3;
}

std::string nasty_digits(Random& random, uint64_t size) {
  static const char* const others[] = {"1e400",
                                       "-1e400",
                                       "1e-400",
                                       "0.1",
                                       "-0",
                                       "-0.0",
                                       "1.5",
                                       "1e3",
                                       "-9223372036854775808",
                                       "-9223372036854775809",
                                       "36893488147419103232",
                                       "01",
                                       "1.",
                                       "NaN",
                                       "Infinity",
                                       "0x10"};
  if (random.one_in(4)) return random.pick(others);
  const std::string digits = std::to_string(nasty_number(random, size));
  return random.one_in(5) ? "-" + digits : digits;
}

std::string nasty_text(Random& random) {
  static const std::string texts[] = {"",
                                      " ",
                                      "a",
                                      std::string(1, '\0'),
                                      "a\x1b[31mb",
                                      "\x7f",
                                      "\xc2\x9b",
                                      "\xff",
                                      "\xc0\x80",
                                      "\xed\xa0\x80",
                                      "\xe2\x80\xae",
                                      "\xf4\x90\x80\x80",
                                      "\xe4\xbd",
                                      "../a",
                                      "/etc/passwd",
                                      "a/b",
                                      "a\\b",
                                      ".",
                                      "..",
                                      "a\nb",
                                      "'",
                                      "\"",
                                      "\\",
                                      "\\u0000",
                                      "\\ud800",
                                      "\\u001b",
                                      "{",
                                      "[",
                                      "]]",
                                      "\xf0\x9f\x98\x80",
                                      "\xe2\x96\x81",
                                      "\xc4\xa0",
                                      "\xcc\x81",
                                      "%s%n",
                                      "none",
                                      "null",
                                      "true"};
  std::string text = random.pick(texts);
  if (random.one_in(8)) {
    const std::string once = text.empty() ? "a" : text;
    for (std::size_t copies = random.below(400); copies > 0; --copies) text += once;
  }
  return random.one_in(4) ? text + random.pick(texts) : text;
}

Piece any_piece(const std::string& bytes, std::size_t max_size, Random& random) {
  const std::size_t at = random.below(bytes.size());
  return {at, std::min(bytes.size() - at, 1 + random.below(max_size))};
}

namespace {

void put_number(std::string& bytes, std::size_t at, Random& random) {
  static constexpr std::size_t widths[] = {1, 2, 4, 8};
  const uint64_t number = nasty_number(random, bytes.size());
  const std::size_t width = std::min(random.pick(widths), bytes.size() - at);
  std::memcpy(bytes.data() + at, &number, width);
}

void put_digits(std::string& bytes, std::size_t at, Random& random) {
  constexpr const char* digits = "0123456789";
  at = bytes.find_first_of(digits, at);
  if (at == bytes.npos) return;
  const std::size_t end = std::min(bytes.find_first_not_of(digits, at), bytes.size());
  bytes.replace(at, end - at, nasty_digits(random, bytes.size()));
}

}  // namespace

std::string mutate_bytes(const std::string& bytes, const std::string& other, Random& random) {
  std::string out = bytes;
  if (out.empty()) return other.substr(0, random.below(64));
  const std::size_t at = random.below(out.size());
  const Piece piece = any_piece(out, random.one_in(4) ? 512 : 16, random);
  switch (random.below(10)) {
    case 0:
      out[at] = static_cast<char>(out[at] ^ 1 << random.below(8));
      break;
    case 1:
      out[at] = static_cast<char>(random.next());
      break;
    case 2:
      put_number(out, at, random);
      break;
    case 3:
      put_digits(out, at, random);
      break;
    case 4:
      out.erase(piece.at, piece.size);
      break;
    case 5:
      out.insert(at, out.substr(piece.at, piece.size));
      break;
    case 6:
      out.insert(at, nasty_text(random));
      break;
    case 7:
      out.resize(at);
      break;
    case 8: {
      const Piece taken = any_piece(other, 64, random);
      out.insert(at, other.substr(taken.at, taken.size));
      break;
    }
    default: {
      const std::string once = out.substr(piece.at, std::min<std::size_t>(piece.size, 16));
      std::string many;
      for (std::size_t copies = 1 + random.below(300); copies > 0; --copies) many += once;
      out.insert(at, many);
    }
  }
  return out;
}

}  // namespace peft::fuzz

#pragma once

#include <cstdint>
#include <string>

#include "random.h"

namespace peft::fuzz {

/// A number that breaks sums, products and casts, or one near `size`.
uint64_t nasty_number(Random& random, uint64_t size);
/// Its digits, or a number that is no integer.
std::string nasty_digits(Random& random, uint64_t size);
/// A text with what is awkward in texts and names: controls, no UTF-8, long runs, paths.
std::string nasty_text(Random& random);

/// One change that knows no format: bits, numbers, pieces gone, doubled or taken from `other`.
std::string mutate_bytes(const std::string& bytes, const std::string& other, Random& random);

/// The piece [at, at + size) of the bytes; `size` at most `longest`.
struct Piece {
  std::size_t at, size;
};
Piece any_piece(const std::string& bytes, std::size_t longest, Random& random);

}  // namespace peft::fuzz

#pragma once

#include <cstdint>
#include <string>

#include "random.h"

namespace peft::fuzz {

/// A number at which sums, products and casts overflow, or one near `size`.
uint64_t nasty_number(Random& random, uint64_t size);
/// The digits of such a number, or a number that is not an integer.
std::string nasty_digits(Random& random, uint64_t size);
/// A text that is unusual as a text or name: control characters, invalid UTF-8, long repetitions, paths.
std::string nasty_text(Random& random);

/// One mutation without knowledge of the format: flips bits, changes numbers, deletes, repeats or inserts bytes.
std::string mutate_bytes(const std::string& bytes, const std::string& other, Random& random);

/// The bytes [at, at + size).
struct Piece {
  std::size_t at, size;
};
/// A random piece of at most `max_size` bytes.
Piece any_piece(const std::string& bytes, std::size_t max_size, Random& random);

}  // namespace peft::fuzz

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "peft/base/error.h"

namespace peft {

/// The bytes of a GGUF file from its beginning on; whoever reads past their end gets an InputError with the place.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}

  /// The next number, little-endian as the machine; `what` stands in the message if the file ends before.
  template <typename T>
  T number(const std::string& what) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  /// The next string: its length, then bytes that must be UTF-8.
  std::string text(const std::string& what);
  /// Where the next `size` bytes are.
  const std::byte* take(uint64_t size, const std::string& what);

  std::size_t position() const { return position_; }
  std::size_t left() const { return bytes_.size() - position_; }
  [[noreturn]] void fail(const std::string& message) const {
    throw InputError(printable(path_, 4096) + ": " + message);
  }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string path_;
};

}  // namespace peft

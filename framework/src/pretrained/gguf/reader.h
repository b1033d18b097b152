#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>

#include "peft/base/error.h"

namespace peft {

/// Reads the bytes of a GGUF file sequentially. Reading past the end is an InputError with the position.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> bytes, std::string path) : bytes_(bytes), path_(std::move(path)) {}

  /// Reads a little-endian number. `what` describes it in the message if the file is too short.
  template <typename T>
  T number(const std::string& what) {
    static_assert(std::is_arithmetic_v<T> && !std::is_same_v<T, bool>);
    T value;
    std::memcpy(&value, take(sizeof value, what), sizeof value);
    return value;
  }
  /// Reads a string: its length, then bytes that must be UTF-8.
  std::string text(const std::string& what);
  /// Returns the address of the next `size` bytes and skips them.
  const std::byte* take(uint64_t size, const std::string& what);

  std::size_t position() const { return position_; }
  std::size_t remaining() const { return bytes_.size() - position_; }
  [[noreturn]] void fail(const std::string& message) const { throw InputError(printable_path(path_) + ": " + message); }

 private:
  std::span<const std::byte> bytes_;
  std::size_t position_ = 0;
  std::string path_;
};

}  // namespace peft

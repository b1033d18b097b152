#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace peft {

/// SHA-256 (FIPS 180-4).
class Sha256 {
 public:
  void add(const void* data, std::size_t size);
  /// The digest as 64 hexadecimal digits. Pads the message: call it once, after the last add().
  std::string hex();

 private:
  void block(const unsigned char* bytes);
  std::array<uint32_t, 8> state_{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> buffer_{};
  uint64_t size_ = 0;
};

}  // namespace peft

#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

namespace peft {

/// XXH3-128: detects accidental changes, not attacks.
class Digest {
 public:
  Digest();
  ~Digest();
  Digest(const Digest&) = delete;
  Digest& operator=(const Digest&) = delete;
  void add(const void* data, std::size_t size);
  /// Hashes the length, too, so that "ab", "c" and "a", "bc" have different digests.
  void add(std::string_view text);
  std::string hex() const;  ///< 32 hexadecimal digits

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace peft

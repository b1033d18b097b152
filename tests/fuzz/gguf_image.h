#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace peft::fuzz {

/// A GGUF file taken to pieces, each of which may be wrong.
struct GgufImage {
  struct Pair {
    std::string key;
    uint32_t type = 0, element_type = 0;  ///< the latter of an array
    std::vector<std::string> values;      ///< one, or an array's: a number's bytes, a string's text
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> sizes;
    uint32_t type = 0;
    uint64_t offset = 0;
  };

  /// Nothing for what is cut off within the header.
  static std::optional<GgufImage> parse(const std::string& bytes);
  /// `more_pairs` and `more_tensors`: how many more are announced than there are.
  std::string write(uint64_t more_pairs, uint64_t more_tensors) const;
  /// Gives each tensor the place behind the one before, and the data the size that all need.
  void lay_out();

  static constexpr uint32_t string_type = 8, array_type = 9, alignment = 32;
  uint32_t version = 3;
  std::vector<Pair> pairs;
  std::vector<Tensor> tensors;
  std::string data;
};

}  // namespace peft::fuzz

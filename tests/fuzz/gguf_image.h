#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace peft::fuzz {

/// The values of a GGUF file, each of which can be invalid.
struct GgufImage {
  struct Pair {
    std::string key;
    uint32_t type = 0, element_type = 0;  ///< element_type: of an array
    std::vector<std::string> values;      ///< one, or all of an array: the bytes of a number or the text of a string
  };
  struct Tensor {
    std::string name;
    std::vector<uint64_t> sizes;
    uint32_t type = 0;
    uint64_t offset = 0;
  };

  /// Returns nullopt if the header is truncated.
  static std::optional<GgufImage> parse(const std::string& bytes);
  /// The header declares `more_pairs` and `more_tensors` in addition to the existing ones.
  std::string write(uint64_t more_pairs, uint64_t more_tensors) const;
  /// Sets the offsets so that the tensors follow each other, and resizes the data accordingly.
  void lay_out();

  static constexpr uint32_t string_type = 8, array_type = 9, alignment = 32;
  uint32_t version = 3;
  std::vector<Pair> pairs;
  std::vector<Tensor> tensors;
  std::string data;
};

}  // namespace peft::fuzz

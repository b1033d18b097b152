#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace peft {

/// Element type of a stored tensor. The quantized types exist only in GGUF files. Fingerprints contain the numeric
/// values: add new types at the end.
enum class StoredType {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u8,
  boolean,
  q4_0,
  q4_1,
  q5_0,
  q5_1,
  q8_0,
  q4_k,
  q5_k,
  q6_k,
};

/// One tensor of a pretrained model, under its Hugging Face name.
struct StoredTensor {
  std::string name;
  StoredType type;
  std::vector<int64_t> shape;  ///< row-major, as in Hugging Face (GGUF lists the dimensions in reverse)
  /// The bytes in the mapped file, little-endian and unaligned. Valid as long as the PretrainedModel.
  const std::byte* data;
  uint64_t size;  ///< bytes
};

}  // namespace peft

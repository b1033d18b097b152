#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "peft/files/pretrained_model.h"

namespace peft {

/// A tensor type of GGUF: rows are stored in blocks of `block_elements`, each of `block_bytes`.
struct GgufType {
  uint32_t number;  ///< ggml_type
  const char* name;
  StoredType type;
  uint32_t block_elements, block_bytes;
};

/// Null if the type is not implemented.
const GgufType* find_gguf_type(uint32_t number);
const GgufType& gguf_type(StoredType type);
/// ggml's name of a type, or "unknown", for messages about those that are not implemented.
const char* gguf_type_name(uint32_t number);

/// `count` blocks of a type to fp32, bit for bit as gguf.quants.dequantize of the gguf Python package.
void dequantise(StoredType type, const std::byte* blocks, int64_t count, float* out);
/// Bytes of a tensor. Its last dimension is whole blocks.
uint64_t gguf_bytes(StoredType type, const std::vector<int64_t>& shape);

}  // namespace peft

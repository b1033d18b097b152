#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "peft/files/pretrained_model.h"

namespace peft {

/// A tensor type of GGUF: a row is stored as blocks of `block_elements` elements in `block_bytes` bytes.
struct GgufType {
  uint32_t number;  ///< ggml_type
  const char* name;
  StoredType type;
  uint32_t block_elements, block_bytes;
};

/// Null if the type is not implemented.
const GgufType* find_gguf_type(uint32_t number);
const GgufType& gguf_type(StoredType type);
/// ggml's name of a type, implemented or not, for messages; "unknown" if ggml has none.
const char* gguf_type_name(uint32_t number);

/// Converts `count` blocks to fp32, bit-identical to gguf.quants.dequantize of the Python package gguf.
void dequantize(StoredType type, const std::byte* blocks, int64_t count, float* out);
/// Bytes of a tensor whose last dimension is a multiple of `block_elements`.
uint64_t gguf_bytes(StoredType type, const std::vector<int64_t>& shape);

}  // namespace peft

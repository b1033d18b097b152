#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "files/atomic_file.h"
#include "peft/files/safetensors.h"

namespace peft {

/// A value of a GGUF file's metadata, by the type it is stored in.
using GgufValue = std::variant<uint32_t, float, bool, std::string, std::vector<std::string>, std::vector<int32_t>,
                               std::vector<float>>;
using GgufPairs = std::vector<std::pair<std::string, GgufValue>>;

/// A tensor that a GGUF file is to hold, by GGUF's name.
struct GgufTensorInfo : TensorInfo {
  int64_t heads = 0;  ///< whose rows are to stand as llama.cpp wants them; 0: as they are given
};

/// Writes a GGUF file (version 3, little-endian), a tensor at a time, whole or not at all.
class GgufWriter {
 public:
  GgufWriter(const std::string& path, const GgufPairs& pairs, std::vector<GgufTensorInfo> tensors);
  /// The bytes of the next tensor, in Hugging Face's order.
  void write(const void* data);
  /// Throws std::logic_error before the last tensor is written.
  void commit();

 private:
  std::vector<GgufTensorInfo> tensors_;
  AtomicFile file_;
  std::size_t next_ = 0;
};

}  // namespace peft

#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "files/atomic_file.h"
#include "peft/files/safetensors.h"

namespace peft {

/// A value of a GGUF file's metadata. The alternatives are the types in which it can be stored.
using GgufValue = std::variant<uint32_t, float, bool, std::string, std::vector<std::string>, std::vector<int32_t>,
                               std::vector<float>>;
using GgufPairs = std::vector<std::pair<std::string, GgufValue>>;

/// GGUF name, type and shape of a tensor to be written.
struct GgufTensorInfo : TensorInfo {
  int64_t heads = 0;  ///< heads whose rows are permuted to llama.cpp's order; 0: not permuted
};

/// Writes a GGUF file (version 3, little-endian) one tensor at a time. The file appears under its name on commit().
/// Throws ResourceError, and InputError for a number in `pairs` that is not finite.
class GgufWriter {
 public:
  GgufWriter(const std::string& path, const GgufPairs& pairs, std::vector<GgufTensorInfo> tensors);
  /// Writes the next tensor, given in Hugging Face's order of rows.
  void write(const void* data);
  /// Throws std::logic_error if not all tensors are written.
  void commit();

 private:
  std::vector<GgufTensorInfo> tensors_;
  AtomicFile file_;
  std::size_t next_ = 0;
};

}  // namespace peft

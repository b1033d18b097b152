#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "files/mapped_file.h"
#include "peft/files/pretrained_model.h"

namespace peft {

/// A tensor as the file names it.
struct GgufTensor {
  std::string name;
  StoredType type;
  std::vector<int64_t> shape;  ///< row-major: the file's order reversed
  const std::byte* data;
  uint64_t size;
};

/// What stands in a GGUF file, checked: every tensor lies within the file, aligned, and the tensors fill
/// its data without a hole.
struct GgufFile {
  /// Throws InputError naming the file, the place and what is wrong.
  static GgufFile parse(const std::shared_ptr<const MappedFile>& file);

  /// Null if there is no such tensor.
  const GgufTensor* find(const std::string& name) const;

  std::shared_ptr<const MappedFile> file;
  nlohmann::json metadata;  ///< an object of the key/value pairs; strings are UTF-8
  std::vector<GgufTensor> tensors;
  uint64_t header_bytes;  ///< of all that stands before the tensors' data
};

}  // namespace peft

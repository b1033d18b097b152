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

/// A tensor of a GGUF file, under its GGUF name.
struct GgufTensor {
  std::string name;
  StoredType type;
  std::vector<int64_t> shape;  ///< row-major: the reverse of the order in the file
  const std::byte* data;
  uint64_t size;
};

/// The contents of a GGUF file, checked: all tensors are within the file, aligned, and cover its data without gaps.
struct GgufFile {
  /// Throws InputError with the file, the location and the reason.
  static GgufFile parse(const std::shared_ptr<const MappedFile>& file);

  /// Null if there is no such tensor.
  const GgufTensor* find(const std::string& name) const;

  std::shared_ptr<const MappedFile> file;
  nlohmann::json metadata;  ///< object of the key/value pairs; strings are UTF-8
  std::vector<GgufTensor> tensors;
  uint64_t header_bytes;  ///< size of everything before the tensor data
};

}  // namespace peft

#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

#include "files/json_object_reader.h"
#include "pretrained/gguf/file.h"

namespace peft {

/// Reads a GGUF file's metadata. A missing or invalid value is an InputError with the file and the key.
class GgufMetadata : public JsonObjectReader {
 public:
  explicit GgufMetadata(const GgufFile& gguf);

  /// An integer from `min` to 2^31 - 1.
  int64_t integer(const std::string& key, int64_t min) const;
  int64_t integer(const std::string& key, int64_t min, int64_t default_value) const;
};

}  // namespace peft

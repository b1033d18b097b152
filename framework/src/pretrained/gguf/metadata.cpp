#include "pretrained/gguf/metadata.h"

#include "peft/base/error.h"

namespace peft {

using nlohmann::json;

GgufMetadata::GgufMetadata(const GgufFile& gguf)
    : JsonObjectReader(gguf.metadata, printable_path(gguf.file->path()) + ": metadata") {}

int64_t GgufMetadata::integer(const std::string& key, int64_t min) const {
  const json& number = require(key);
  const bool too_large = number.is_number_unsigned() && number.get<uint64_t>() > INT32_MAX;
  if (!number.is_number_integer() || too_large || number.get<int64_t>() < min || number.get<int64_t>() > INT32_MAX)
    fail("'" + key + "' must be an integer from " + std::to_string(min) + " to " + std::to_string(INT32_MAX));
  return number.get<int64_t>();
}

int64_t GgufMetadata::integer(const std::string& key, int64_t min, int64_t default_value) const {
  return has(key) ? integer(key, min) : default_value;
}

}  // namespace peft

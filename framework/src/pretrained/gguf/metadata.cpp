#include "pretrained/gguf/metadata.h"

#include <cmath>

#include "peft/base/error.h"

namespace peft {

using nlohmann::json;

int64_t GgufMetadata::integer(const std::string& key, int64_t least) const {
  const json& value = need(key);
  const bool too_large = value.is_number_unsigned() && value.get<uint64_t>() > INT32_MAX;
  if (!value.is_number_integer() || too_large || value.get<int64_t>() < least || value.get<int64_t>() > INT32_MAX)
    fail("'" + key + "' must be an integer from " + std::to_string(least) + " to " + std::to_string(INT32_MAX));
  return value.get<int64_t>();
}

int64_t GgufMetadata::integer(const std::string& key, int64_t least, int64_t otherwise) const {
  return has(key) ? integer(key, least) : otherwise;
}

double GgufMetadata::number(const std::string& key) const {
  const json& value = need(key);
  if (!value.is_number() || !std::isfinite(value.get<double>())) fail("'" + key + "' must be a finite number");
  return value.get<double>();
}

double GgufMetadata::number(const std::string& key, double otherwise) const {
  return has(key) ? number(key) : otherwise;
}

std::string GgufMetadata::text(const std::string& key) const {
  const json& value = need(key);
  if (!value.is_string()) fail("'" + key + "' must be a string");
  return value.get<std::string>();
}

std::string GgufMetadata::text(const std::string& key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}

const json& GgufMetadata::array(const std::string& key) const {
  const json& value = need(key);
  if (!value.is_array()) fail("'" + key + "' must be an array");
  return value;
}

void GgufMetadata::fail(const std::string& message) const {
  throw InputError(printable(path_, 4096) + ": metadata: " + message);
}

const json& GgufMetadata::need(const std::string& key) const {
  const auto found = values_.find(key);
  if (found == values_.end()) fail("'" + key + "' is missing");
  return *found;
}

}  // namespace peft

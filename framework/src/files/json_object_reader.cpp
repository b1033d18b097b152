#include "files/json_object_reader.h"

#include <algorithm>
#include <cmath>

#include "peft/base/error.h"

namespace peft {

using nlohmann::json;

JsonObjectReader::JsonObjectReader(const json& object, std::string location)
    : object_(&object), location_(std::move(location)) {
  if (!object.is_object()) fail("must be an object");
}

void JsonObjectReader::fail(const std::string& message) const { throw InputError(location_ + ": " + message); }

bool JsonObjectReader::has(const std::string& key) const {
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

const json& JsonObjectReader::require(const std::string& key) const {
  if (!has(key)) fail("'" + printable(key) + "' is missing");
  return *object_->find(key);
}

std::string JsonObjectReader::text(const std::string& key) const {
  const json& value = require(key);
  if (!value.is_string()) fail("'" + printable(key) + "' must be a string");
  return value.get<std::string>();
}

std::string JsonObjectReader::text(const std::string& key, const std::string& default_value) const {
  return has(key) ? text(key) : default_value;
}

bool JsonObjectReader::flag(const std::string& key, bool default_value) const {
  if (!has(key)) return default_value;
  const json& value = require(key);
  if (!value.is_boolean()) fail("'" + printable(key) + "' must be true or false");
  return value.get<bool>();
}

double JsonObjectReader::number(const std::string& key) const {
  const json& value = require(key);
  if (!value.is_number() || !std::isfinite(value.get<double>()))
    fail("'" + printable(key) + "' must be a finite number");
  return value.get<double>();
}

double JsonObjectReader::number(const std::string& key, double default_value) const {
  return has(key) ? number(key) : default_value;
}

int64_t JsonObjectReader::integer(const std::string& key) const {
  const json& value = require(key);
  if (!value.is_number_integer()) fail("'" + printable(key) + "' must be an integer");
  return value.get<int64_t>();
}

const json& JsonObjectReader::array(const std::string& key) const {
  const json& value = require(key);
  if (!value.is_array()) fail("'" + printable(key) + "' must be an array");
  return value;
}

const json& JsonObjectReader::object(const std::string& key) const {
  const json& value = require(key);
  if (!value.is_object()) fail("'" + printable(key) + "' must be an object");
  return value;
}

JsonObjectReader JsonObjectReader::at(const std::string& key) const {
  return {object(key), location_ + "." + printable(key)};
}

std::vector<JsonObjectReader> JsonObjectReader::each(const std::string& key) const {
  std::vector<JsonObjectReader> readers;
  for (const json& item : array(key))
    readers.emplace_back(item, location_ + "." + printable(key) + "[" + std::to_string(readers.size()) + "]");
  return readers;
}

void JsonObjectReader::allow_only(std::initializer_list<const char*> keys) const {
  for (const auto& item : object_->items()) {
    const auto same = [&](const char* key) { return item.key() == key; };
    if (std::none_of(keys.begin(), keys.end(), same)) fail("option '" + printable(item.key()) + "' is not implemented");
  }
}

}  // namespace peft

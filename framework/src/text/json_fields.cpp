#include "text/json_fields.h"

#include <algorithm>

#include "base/strict_json.h"
#include "peft/base/error.h"

namespace peft::text {

namespace {

using nlohmann::json;

constexpr std::size_t max_depth = 64;

}  // namespace

json parse_json(const std::string& text, const std::string& name) {
  try {
    return read_strict_json(text, name, max_depth);
  } catch (const JsonSyntaxError& error) {
    throw InputError(name + ": not valid JSON at byte " + std::to_string(error.position) + ": " +
                     printable(error.what));
  }
}

Fields::Fields(const json& object, std::string where) : object_(&object), where_(std::move(where)) {
  if (!object.is_object()) throw InputError(where_ + " must be an object");
}

void Fields::fail(const std::string& message) const { throw InputError(where_ + ": " + message); }

bool Fields::has(const std::string& key) const {
  const auto found = object_->find(key);
  return found != object_->end() && !found->is_null();
}

const json& Fields::need(const std::string& key) const {
  if (!has(key)) fail("'" + printable(key) + "' is missing");
  return *object_->find(key);
}

std::string Fields::text(const char* key) const {
  const json& value = need(key);
  if (!value.is_string()) fail("'" + std::string(key) + "' must be a string");
  return value.get<std::string>();
}

std::string Fields::text(const char* key, const std::string& otherwise) const {
  return has(key) ? text(key) : otherwise;
}

bool Fields::flag(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  const json& value = need(key);
  if (!value.is_boolean()) fail("'" + std::string(key) + "' must be true or false");
  return value.get<bool>();
}

double Fields::number(const char* key) const {
  const json& value = need(key);
  if (!value.is_number()) fail("'" + std::string(key) + "' must be a number");
  return value.get<double>();
}

int64_t Fields::integer(const char* key) const {
  const json& value = need(key);
  if (!value.is_number_integer()) fail("'" + std::string(key) + "' must be an integer");
  return value.get<int64_t>();
}

const json& Fields::array(const char* key) const {
  const json& value = need(key);
  if (!value.is_array()) fail("'" + std::string(key) + "' must be an array");
  return value;
}

const json& Fields::object(const std::string& key) const {
  const json& value = need(key);
  if (!value.is_object()) fail("'" + printable(key) + "' must be an object");
  return value;
}

Fields Fields::at(const std::string& key) const { return {object(key), where_ + "." + printable(key)}; }

std::vector<Fields> Fields::each(const char* key) const {
  std::vector<Fields> all;
  for (const json& item : array(key))
    all.emplace_back(item, where_ + "." + key + "[" + std::to_string(all.size()) + "]");
  return all;
}

void Fields::only(std::initializer_list<const char*> keys) const {
  for (const auto& item : object_->items()) {
    const auto same = [&](const char* key) { return item.key() == key; };
    if (std::none_of(keys.begin(), keys.end(), same)) fail("option '" + printable(item.key()) + "' is not implemented");
  }
}

}  // namespace peft::text

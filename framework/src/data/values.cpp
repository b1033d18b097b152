#include "data/values.h"

#include "peft/base/error.h"

namespace peft::data {

void Values::fail(const std::string& key, const std::string& message) const {
  throw InputError(where_ + ": '" + path_ + key + "' " + message);
}

const Json& Values::at(const std::string& key) const {
  const auto found = object_.find(key);
  if (found == object_.end()) fail(key, "is missing");
  return *found;
}

bool Values::has(const std::string& key) const {
  const auto found = object_.find(key);
  return found != object_.end() && !found->empty() && *found != "";
}

bool Values::is_null(const std::string& key) const {
  const auto found = object_.find(key);
  return found == object_.end() || found->is_null();
}

bool Values::is_list(const std::string& key) const { return at(key).is_array(); }

std::string Values::text(const std::string& key) const {
  const Json& value = at(key);
  if (!value.is_string()) fail(key, std::string("must be a string, is ") + value.type_name());
  return value.get<std::string>();
}

std::string Values::optional_text(const std::string& key) const { return has(key) ? text(key) : ""; }

std::string Values::content(const std::string& key) const {
  if (!is_list(key)) return text(key);
  std::string out;
  for (const Values& part : objects(key)) {
    if (part.text("type") != "text") part.fail("type", "is not supported: only \"text\" is");
    out += part.text(part.is_null("value") ? "text" : "value");  // LLaMA-Factory writes `value`
  }
  return out;
}

std::optional<bool> Values::flag(const std::string& key) const {
  if (is_null(key)) return std::nullopt;
  const Json& value = at(key);
  if (value.is_boolean()) return value.get<bool>();
  if (!value.is_number() || (value != 0 && value != 1)) fail(key, "must be true or false, or 1 or 0");
  return value == 1;
}

std::vector<Values> Values::objects(const std::string& key) const {
  const Json& value = at(key);
  if (!value.is_array()) fail(key, std::string("must be a list, is ") + value.type_name());
  std::vector<Values> out;
  for (std::size_t i = 0; i < value.size(); ++i) {
    const std::string path = path_ + key + "[" + std::to_string(i) + "]";
    if (!value[i].is_object())
      throw InputError(where_ + ": '" + path + "' must be an object, is " + value[i].type_name());
    out.emplace_back(value[i], where_, path + ".");
  }
  return out;
}

std::vector<std::pair<std::string, std::string>> Values::pairs(const std::string& key) const {
  std::vector<std::pair<std::string, std::string>> out;
  if (!has(key)) return out;
  const Json& value = at(key);
  if (!value.is_array()) fail(key, std::string("must be a list, is ") + value.type_name());
  for (const Json& pair : value) {
    if (!pair.is_array() || pair.size() != 2 || !pair[0].is_string() || !pair[1].is_string())
      fail(key, "must be a list of [question, answer] pairs of strings");
    out.emplace_back(pair[0].get<std::string>(), pair[1].get<std::string>());
  }
  return out;
}

}  // namespace peft::data

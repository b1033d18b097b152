#include "text/tokenizer/tokenizer_config.h"

#include <nlohmann/json.hpp>

#include "peft/base/error.h"

namespace peft::text {

using nlohmann::json;

std::string special_token(const json& config, const std::string& key, const std::string& path) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return "";
  const json* value = &*found;
  if (value->is_object() && value->contains("content")) value = &value->at("content");
  if (!value->is_string()) throw InputError(path + ": tokenizer_config: '" + key + "' must be a string");
  return value->get<std::string>();
}

std::string template_source(const json& config, const std::string& path) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (found->is_array())
    for (const json& item : *found)
      if (item.is_object() && item.value("name", json()) == "default" && item.value("template", json()).is_string())
        return item["template"].get<std::string>();
  throw InputError(path +
                   ": tokenizer_config: 'chat_template' must be a string, or a list of {\"name\", \"template\"} with "
                   "one named \"default\"");
}

}  // namespace peft::text

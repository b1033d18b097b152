#include "text/tokenizer/tokenizer_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"

namespace peft::text {

using nlohmann::json;

std::string special_token(const json& config, const std::string& key, const std::string& name) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return "";
  const json* value = &*found;
  if (value->is_object() && value->contains("content")) value = &value->at("content");
  if (!value->is_string()) throw InputError(name + ": '" + key + "' must be a string");
  return value->get<std::string>();
}

std::vector<std::string> special_token_keys(const json& config) {
  static const std::vector<std::string> common = {"bos_token", "eos_token", "unk_token", "sep_token",
                                                  "pad_token", "cls_token", "mask_token"};
  std::vector<std::string> keys;
  for (const std::string& key : common)
    if (config.contains(key) && !config[key].is_null()) keys.push_back(key);
  for (const auto& [key, value] : config.items())
    if (key.ends_with("_token") && value.is_string() && std::find(common.begin(), common.end(), key) == common.end())
      keys.push_back(key);
  return keys;
}

std::map<std::string, std::string> special_tokens(const json& config, const std::string& name) {
  std::map<std::string, std::string> tokens;
  for (const std::string& key : special_token_keys(config)) tokens[key] = special_token(config, key, name);
  if (const auto extra = config.find("extra_special_tokens"); extra != config.end() && extra->is_object())
    for (const auto& [key, token] : extra->items()) tokens[key] = special_token(*extra, key, name);
  return tokens;
}

std::map<std::string, std::string> named_templates(const json& config, const std::string& name) {
  std::map<std::string, std::string> templates;
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return templates;
  if (found->is_string()) return {{"default", found->get<std::string>()}};
  for (const json& item : found->is_array() ? *found : json::array({nullptr})) {
    if (!item.is_object() || !item.value("name", json()).is_string() || !item.value("template", json()).is_string())
      throw InputError(name + ": 'chat_template' must be a string, or a list of {\"name\", \"template\"}");
    templates[item["name"].get<std::string>()] = item["template"].get<std::string>();
  }
  return templates;
}

std::string listed_names(const std::map<std::string, std::string>& templates) {
  std::string names;
  for (const auto& [name, source] : templates) names += (names.empty() ? "'" : ", '") + printable(name) + "'";
  return names.empty() ? "none" : names;
}

std::string template_source(const json& config, const std::string& name) {
  const auto templates = named_templates(config, name);
  if (templates.empty()) return "";
  const auto found = templates.find("default");
  if (found != templates.end()) return found->second;
  throw InputError(name + ": no chat template is named 'default'; choose one with [model] chat_template or " +
                   "--chat-template: " + listed_names(templates));
}

}  // namespace peft::text

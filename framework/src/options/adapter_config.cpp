// Reads HF PEFT's adapter_config.json as a table of options.
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "options/document_state.h"
#include "peft/base/error.h"

namespace peft {
namespace {

using detail::Entries;
using detail::Value;
using nlohmann::json;

/// Keys that record where an adapter comes from and do not change what it computes.
const std::set<std::string> kBookkeeping = {"peft_type", "peft_version", "auto_mapping",  "base_model_name_or_path",
                                            "revision",  "task_type",    "inference_mode"};
/// Keys that have an effect only if a second key is set. HF PEFT always writes them, with their defaults.
const std::pair<const char*, const char*> kDependent[] = {
    {"megatron_core", "megatron_config"}, {"qalora_group_size", "use_qalora"}, {"eps", "coft"}};

bool disables_feature(const json& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return text.empty() || text == "none" || text == "NONE";
  }
  return value.is_null() || value == json(false) || (value.is_structured() && value.empty());
}

Value convert(const json& in, const detail::SourceLocation& location, int depth, const std::string& path) {
  if (depth > 16) throw InputError(printable_path(path) + ": nested deeper than 16 levels");
  Value out{Value::Other{"null"}, location, disables_feature(in)};
  if (in.is_boolean()) out.data = in.get<bool>();
  if (in.is_string()) out.data = in.get<std::string>();
  if (in.is_number_float()) out.data = in.get<double>();
  if (in.is_number_integer()) {
    constexpr auto max = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (in.is_number_unsigned() && in.get<uint64_t>() > max)
      out.data = Value::Other{"an integer beyond 64 bits"};
    else
      out.data = in.get<int64_t>();
  }
  if (in.is_array()) {
    detail::ValueList values;
    for (const json& element : in) values.push_back(convert(element, location, depth + 1, path));
    out.data = std::move(values);
  }
  if (in.is_object()) {
    Entries entries;
    for (const auto& [key, value] : in.items())
      entries.push_back({key, location, convert(value, location, depth + 1, path)});
    out.data = std::move(entries);
  }
  return out;
}

}  // namespace

Document Document::from_adapter_config(const std::string& table, const json& config, const std::string& path) {
  if (!config.is_object()) throw InputError(printable_path(path) + ": must be a JSON object");
  auto state = std::make_unique<State>();
  state->kind = ErrorKind::input;
  state->source = std::make_shared<detail::Source>(detail::Source{path, std::filesystem::absolute(path).parent_path()});
  const detail::SourceLocation location{state->source};
  Entries entries;
  for (const auto& [key, value] : config.items()) {
    // HF PEFT writes null for "not given", also for known options.
    if (kBookkeeping.count(key) != 0 || value.is_null()) continue;
    Value converted = convert(value, location, 0, path);
    for (const auto& [dependent_key, needed_key] : kDependent)
      if (key == dependent_key && disables_feature(config.value(needed_key, json()))) converted.ignorable = true;
    entries.push_back({key, location, std::move(converted)});
  }
  state->entries.push_back({table, location, {std::move(entries), location}});
  return Document(std::move(state));
}

}  // namespace peft

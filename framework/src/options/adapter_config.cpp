// HF PEFT's adapter_config.json as a table of options.
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

/// Fields that say where an adapter comes from, not what it computes.
const std::set<std::string> bookkeeping = {"peft_type", "peft_version", "auto_mapping",  "base_model_name_or_path",
                                           "revision",  "task_type",    "inference_mode"};
/// Fields that only count where another one is set, but are written with their default always.
const std::pair<const char*, const char*> dependent[] = {
    {"megatron_core", "megatron_config"}, {"qalora_group_size", "use_qalora"}, {"eps", "coft"}};

bool says_off(const json& value) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return text.empty() || text == "none" || text == "NONE";
  }
  return value.is_null() || value == json(false) || (value.is_structured() && value.empty());
}

Value convert(const json& in, const detail::Place& place, int depth, const std::string& path) {
  if (depth > 16) throw InputError(printable(path, 4096) + ": nested deeper than 16");
  Value out{Value::Other{"null"}, place, says_off(in)};
  if (in.is_boolean()) out.data = in.get<bool>();
  if (in.is_string()) out.data = in.get<std::string>();
  if (in.is_number_float()) out.data = in.get<double>();
  if (in.is_number_integer()) {
    constexpr auto most = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    if (in.is_number_unsigned() && in.get<uint64_t>() > most)
      out.data = Value::Other{"an integer beyond 64 bits"};
    else
      out.data = in.get<int64_t>();
  }
  if (in.is_array()) {
    detail::Values values;
    for (const json& element : in) values.push_back(convert(element, place, depth + 1, path));
    out.data = std::move(values);
  }
  if (in.is_object()) {
    Entries entries;
    for (const auto& [key, value] : in.items()) entries.push_back({key, place, convert(value, place, depth + 1, path)});
    out.data = std::move(entries);
  }
  return out;
}

}  // namespace

Document Document::from_adapter_config(const std::string& table, const json& config, const std::string& path) {
  if (!config.is_object()) throw InputError(printable(path, 4096) + ": must be an object of options");
  auto state = std::make_unique<State>();
  state->kind = ErrorKind::input;
  state->source = std::make_shared<detail::Source>(detail::Source{path, std::filesystem::absolute(path).parent_path()});
  const detail::Place place{state->source};
  Entries entries;
  for (const auto& [key, value] : config.items()) {
    // null is how PEFT writes "not given", for known options too.
    if (bookkeeping.count(key) != 0 || value.is_null()) continue;
    Value converted = convert(value, place, 0, path);
    for (const auto& [field, needs] : dependent)
      if (key == field && says_off(config.value(needs, json()))) converted.ignorable = true;
    entries.push_back({key, place, std::move(converted)});
  }
  state->entries.push_back({table, place, {std::move(entries), place}});
  return Document(std::move(state));
}

}  // namespace peft

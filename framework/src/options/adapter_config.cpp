// Reads HF PEFT's adapter_config.json as a table of options.
#include <algorithm>
#include <cctype>
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

/// Keys that record where an adapter comes from and do not change what it computes. HF PEFT drops runtime_config, too.
const std::set<std::string> kBookkeeping = {"peft_type", "peft_version", "auto_mapping",   "base_model_name_or_path",
                                            "revision",  "task_type",    "inference_mode", "runtime_config"};
/// Keys, with the tables in them, that say how an adapter is initialized. Dropouts are known by their name.
const std::set<std::string> kInitialization = {"init_weights", "init_lora_weights", "init_ia3_weights", "eva_config",
                                               "corda_config", "lora_ga_config",    "loftq_config"};
/// Keys of one method that matter only in training.
const std::set<std::pair<std::string, std::string>> kTraining = {{"adalora", "r"},
                                                                 {"adalora", "total_step"},
                                                                 {"prompt_tuning", "prompt_tuning_init"},
                                                                 {"prompt_tuning", "prompt_tuning_init_text"},
                                                                 {"prompt_tuning", "tokenizer_name_or_path"},
                                                                 {"prompt_tuning", "tokenizer_kwargs"}};
/// Methods whose initialization also selects what they compute.
const std::set<std::string> kInitializationComputes = {"miss"};
/// Keys that have an effect only if a second key is set. HF PEFT always writes them, with their defaults.
const std::pair<const char*, const char*> kDependent[] = {
    {"megatron_core", "megatron_config"}, {"qalora_group_size", "use_qalora"}, {"eps", "coft"}};

constexpr int kMaxDepth = 16;
constexpr std::size_t kMaxListed = 50;  // unknown keys in a message

bool disables_feature(const json& value, int depth = 0) {
  if (value.is_string()) {
    const auto& text = value.get_ref<const std::string&>();
    return text.empty() || text == "none" || text == "NONE";
  }
  if (value.is_object() && depth < kMaxDepth)
    return std::all_of(value.begin(), value.end(), [&](const json& v) { return disables_feature(v, depth + 1); });
  return value.is_null() || value == json(false) || (value.is_structured() && value.empty());
}

Value convert(const json& in, const detail::SourceLocation& location, int depth, const std::string& path) {
  if (depth > kMaxDepth)
    throw InputError(printable_path(path) + ": nested deeper than " + std::to_string(kMaxDepth) + " levels");
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

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::string text_of(const json& config, const char* key) {
  const auto it = config.find(key);
  return it != config.end() && it->is_string() ? it->get<std::string>() : "";
}

/// A dropout that HF PEFT would take: it refuses what cannot be a probability.
bool is_dropout(std::string_view key, const Value& value) {
  if (key.find("dropout") == key.npos) return false;
  if (const auto* number = std::get_if<double>(&value.data)) return *number >= 0 && *number <= 1;
  if (const auto* number = std::get_if<int64_t>(&value.data)) return *number == 0 || *number == 1;
  return std::holds_alternative<bool>(value.data);
}

/// "adapter.eva_config" and "rho" → "eva_config.rho".
std::string full_key(const std::string& table, std::string_view key) {
  const auto dot = table.find('.');
  return (dot == table.npos ? "" : table.substr(dot + 1) + ".") + std::string(key);
}

}  // namespace

namespace detail {

bool SavedConfig::passes(const std::string& table, std::string_view key, const Value& value) {
  const std::string full = full_key(table, key), first = full.substr(0, full.find('.'));
  const bool initializes = kInitialization.contains(first) && !kInitializationComputes.contains(method_);
  if (!initializes && !kTraining.contains({method_, first}) && !is_dropout(key, value)) return false;
  passed_.insert(full);
  return true;
}

void SavedConfig::add_unknown(const std::string& table, const std::string& key) {
  if (num_unknown_++ < kMaxListed) unknown_ += (unknown_.empty() ? "'" : ", '") + printable(full_key(table, key)) + "'";
}

std::string SavedConfig::unknown() const {
  return num_unknown_ > kMaxListed ? unknown_ + " and " + std::to_string(num_unknown_ - kMaxListed) + " more"
                                   : unknown_;
}

}  // namespace detail

/// All unknown keys in one error, so that they need not be found one at a time.
void Document::State::report_saved() {
  if (saved->num_unknown() == 0 || ignore_unknown) return;
  const std::string version = peft_version.empty() ? "" : " in a file of HF PEFT " + printable(peft_version);
  errors->add({source},
              std::string("unknown ") + (saved->num_unknown() == 1 ? "key " : "keys ") + saved->unknown() + version +
                  ", which could change what the adapter computes; if not, pass --ignore-unknown, or set [model] "
                  "ignore_unknown = true in an experiment");
}

StringList Document::notes() const {
  StringList lines;
  if (state_->saved == nullptr) return lines;
  const std::string where = printable_path(state_->source->name) + ": ";
  if (state_->saved->num_unknown() > 0) lines.push_back(where + "ignored unknown keys " + state_->saved->unknown());
  for (const std::string& key : state_->saved->passed())
    lines.push_back(where + "'" + printable(key) +
                    "' is not implemented with this value and is ignored; it matters only in training");
  return lines;
}

Document Document::from_adapter_config(const std::string& table, const json& config, const std::string& path,
                                       bool ignore_unknown) {
  if (!config.is_object()) throw InputError(printable_path(path) + ": must be a JSON object");
  auto state = std::make_unique<State>();
  state->kind = ErrorKind::input;
  state->saved = std::make_shared<detail::SavedConfig>(lower(text_of(config, "peft_type")));
  state->peft_version = text_of(config, "peft_version");
  state->ignore_unknown = ignore_unknown;
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

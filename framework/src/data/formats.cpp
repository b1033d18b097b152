#include "data/formats.h"

#include <algorithm>
#include <stdexcept>

#include "data/values.h"
#include "peft/base/error.h"

namespace peft::data {
namespace {

using nlohmann::json;

std::string keys_of(const json& record) {
  std::string out;
  for (const auto& [key, value] : record.items()) {
    if (!out.empty()) out += ", ";
    if (out.size() > 300) return out + "…";
    out += "'" + printable(key, 60) + "'";
  }
  return out.empty() ? "(none)" : out;
}

/// Throws InputError for a value that would change the targets and that no format here uses.
void refuse_unused(const json& record, const std::string& where) {
  for (const char* key : {"chosen", "rejected", "label", "tools", "images", "videos", "audios"}) {
    const auto found = record.find(key);
    if (found == record.end() || found->is_null() || (found->is_structured() && found->empty())) continue;
    if (found->is_string() && (*found == "" || *found == "[]")) continue;
    if (std::string(key) == "label" && !found->is_boolean()) continue;  // a class of the text, not a preference
    throw InputError(
        where + ": '" + key +
        "' (preferences, tools, media) would be ignored; set [data] format to train on the rest of such records");
  }
}

std::vector<ChatTurn> read_messages(const Values& values, const std::string& key, bool supervise) {
  std::vector<ChatTurn> turns;
  for (const Values& message : values.objects(key)) {
    const std::string role = message.text("role");
    static const StringList known = {"system", "developer", "user", "assistant", "tool"};
    if (std::find(known.begin(), known.end(), role) == known.end())
      message.fail("role", "is '" + printable(role, 60) + "', not system, developer, user, assistant or tool");
    if (message.has("tool_calls")) message.fail("tool_calls", "is not supported; only 'content' is trained on");
    const bool wanted = message.weight();
    turns.push_back({{role, message.content("content")}, supervise && wanted && role == "assistant"});
  }
  return turns;
}

std::vector<ChatTurn> read_sharegpt(const Values& values) {
  std::vector<ChatTurn> turns;
  if (const std::string system = values.optional_text("system"); !system.empty())
    turns.push_back({{"system", system}, false});
  for (const Values& message : values.objects("conversations")) {
    const std::string from = message.text("from");
    const bool human = from == "human" || from == "user", model = from == "gpt" || from == "assistant";
    const bool tool = from == "observation" || from == "tool";
    if (!human && !model && !tool && from != "system")
      message.fail("from",
                   "is '" + printable(from, 60) + "', not system, human (user), gpt (assistant) or observation (tool)");
    const bool wanted = message.weight();
    turns.push_back({{human   ? "user"
                      : model ? "assistant"
                      : tool  ? "tool"
                              : "system",
                      message.text("value")},
                     model && wanted});
  }
  return turns;
}

std::vector<ChatTurn> alpaca_turns(const Values& values, const std::string& instruction, const std::string& input) {
  std::vector<ChatTurn> turns;
  if (const std::string system = values.optional_text("system"); !system.empty())
    turns.push_back({{"system", system}, false});
  for (const auto& [question, answer] : values.pairs("history")) {
    turns.push_back({{"user", question}, false});
    turns.push_back({{"assistant", answer}, false});
  }
  turns.push_back({{"user", input.empty() ? instruction : instruction + "\n" + input}, false});
  turns.push_back({{"assistant", values.text("output")}, true});
  return turns;
}

/// The prompt of Stanford Alpaca (https://github.com/tatsu-lab/stanford_alpaca), for models without a chat template.
std::string alpaca_prompt(std::string system, const std::string& instruction, const std::string& input) {
  if (system.empty()) {
    system = "Below is an instruction that describes a task";
    if (!input.empty()) system += ", paired with an input that provides further context";
    system += ". Write a response that appropriately completes the request.";
  }
  std::string prompt = system + "\n\n### Instruction:\n" + instruction;
  if (!input.empty()) prompt += "\n\n### Input:\n" + input;
  return prompt + "\n\n### Response:\n";
}

Record read_alpaca(const Values& values, const DataOptions& options, bool has_chat_template) {
  Record item;
  const std::string instruction = values.text("instruction"), input = values.optional_text("input");
  if (has_chat_template) {
    item.turns = alpaca_turns(values, instruction, input);
    return item;
  }
  if (!values.pairs("history").empty()) values.fail("history", "needs a checkpoint with a chat template");
  std::string system = values.optional_text("system");
  if (system.empty()) system = options.system;
  item.prompt = alpaca_prompt(std::move(system), instruction, input);
  item.completion = values.text("output");
  return item;
}

Record read_prompt_completion(const Values& values, const DataOptions&, bool) {
  Record item;
  if (values.is_list("prompt") != values.is_list("completion"))
    values.fail("completion", "must be a string if 'prompt' is one, a list of messages if 'prompt' is one");
  if (values.is_list("prompt")) {
    item.turns = read_messages(values, "prompt", false);
    for (ChatTurn& turn : read_messages(values, "completion", true)) item.turns.push_back(std::move(turn));
  } else {
    item.prompt = values.text("prompt");
    item.completion = values.text("completion");
  }
  return item;
}

Record conversation(std::vector<ChatTurn> turns, const Values& values) {
  if (turns.empty()) throw InputError(values.where() + ": the conversation is empty");
  Record item;
  item.turns = std::move(turns);
  return item;
}

/// A format of records. A new one is a row of the table, and a name that an objective lists.
struct Format {
  const char* name;
  StringList keys;  ///< a record of this format has all of them
  Record (*read)(const Values& values, const DataOptions& options, bool has_chat_template);
};

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {
      {"messages",
       {"messages"},
       [](const Values& values, const DataOptions&, bool) {
         return conversation(read_messages(values, "messages", true), values);
       }},
      {"sharegpt",
       {"conversations"},
       [](const Values& values, const DataOptions&, bool) { return conversation(read_sharegpt(values), values); }},
      {"alpaca", {"instruction", "output"}, read_alpaca},
      {"prompt_completion", {"prompt", "completion"}, read_prompt_completion},
      {"text", {"text"}, [](const Values& values, const DataOptions&, bool) {
         Record item;
         item.completion = values.text("text");
         return item;
       }}};
  return all;
}

bool is_among(const StringList& names, const Format& format) {
  return names.empty() || std::find(names.begin(), names.end(), format.name) != names.end();
}

bool has_keys(const json& record, const Format& format) {
  return std::all_of(format.keys.begin(), format.keys.end(), [&](const auto& key) { return record.contains(key); });
}

std::string known_formats(const StringList& among) {
  std::string out;
  for (const Format& format : formats()) {
    if (!is_among(among, format)) continue;
    out += std::string(out.empty() ? "" : "; ") + format.name + ":";
    for (const std::string& key : format.keys) out += " '" + key + "'";
  }
  return out;
}

}  // namespace

StringList format_names() {
  StringList names;
  for (const Format& format : formats()) names.emplace_back(format.name);
  return names;
}

std::string detect_format(const json& record, const StringList& among, const std::string& where) {
  for (const Format& format : formats())
    if (is_among(among, format) && has_keys(record, format)) {
      refuse_unused(record, where);
      return format.name;
    }
  throw InputError(where + ": the keys " + keys_of(record) + " match no known format (" + known_formats(among) + ")");
}

Record read_record(const json& record, const std::string& format, const DataOptions& options, bool has_chat_template,
                   const std::string& where) {
  const auto known =
      std::find_if(formats().begin(), formats().end(), [&](const Format& f) { return format == f.name; });
  if (known == formats().end()) throw std::logic_error("no record format is named '" + format + "'");
  if (!has_keys(record, *known))
    throw InputError(where + ": has " + keys_of(record) + ", but " +
                     (options.format == "auto" ? "earlier records have" : "[data] sets") + " format " + format + " (" +
                     known_formats(options.formats) + ")");
  if (options.format == "auto") refuse_unused(record, where);
  const Values values(record, where, "");
  Record item = known->read(values, options, has_chat_template);
  item.source = where;
  if (item.turns.empty()) return item;
  const std::string& first = item.turns[0].message.role;
  if (first != "system" && first != "developer" && !options.system.empty())
    item.turns.insert(item.turns.begin(), {{"system", options.system}, false});
  if (!has_chat_template)
    throw InputError(
        where +
        ": conversations need a chat template, but the model has none: give one with [model] chat_template "
        "or --chat-template");
  return item;
}

}  // namespace peft::data

#include "data/formats.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>

#include "base/strict_json.h"
#include "data/values.h"
#include "peft/base/error.h"

namespace peft::data {
namespace {

constexpr std::string_view blank = " \t\r\n";
constexpr const char* call_keys[] = {"tool_calls", "function_call"};

std::string keys_of(const Json& record) {
  std::string out;
  for (const auto& [key, value] : record.items()) {
    if (!out.empty()) out += ", ";
    if (out.size() > 300) return out + "…";
    out += "'" + printable(key, 60) + "'";
  }
  return out.empty() ? "(none)" : out;
}

bool is_blank(const std::string& text) { return text.find_first_not_of(blank) == std::string::npos; }

/// Throws InputError for a value that would change the targets and that this format does not use.
void refuse_unused(const Json& record, bool is_conversation, const std::string& where) {
  for (const char* key : {"chosen", "rejected", "label", "tools", "functions", "images", "videos", "audios",
                          "loss_mask", "completion_mask", "assistant_masks", "chat_template_kwargs"}) {
    const auto found = record.find(key);
    if (found == record.end() || found->is_null() || (found->is_structured() && found->empty())) continue;
    if (found->is_string() && (*found == "" || *found == "[]")) continue;
    if (std::string_view(key) == "label" && !found->is_boolean()) continue;  // a class of the text, not a preference
    if (std::string_view(key) == "tools" && is_conversation) continue;
    throw InputError(where + ": '" + key +
                     "' (preferences, tools, media, loss masks, template options) would be ignored; set [data] format "
                     "to train on the rest of such records");
  }
}

/// Whether a message is a target, by the keys that Axolotl, LLaMA-Factory, ms-swift, InternLM and OpenAI read.
bool is_target(const Values& message, bool is_answer) {
  for (const char* key : {"loss_mask", "train_detail", "training_detail"})
    if (!message.is_null(key))
      message.fail(key, "is not supported; write \"train\": false in a message that is not to be learned");
  bool learned = is_answer;
  for (const char* key : {"train", "training", "trainable", "loss", "loss_scale", "weight", "loss_weight"}) {
    const auto wanted = message.flag(key);
    const bool is_weight = std::string_view(key).ends_with("weight");  // OpenAI ignores it in other messages
    if (wanted == true && !is_answer && !is_weight)
      message.fail(key, "is true, but only the answers of the assistant are learned here");
    if (wanted == false) learned = false;
  }
  return learned;
}

/// `content` as the template gets it: a list of parts keeps its parts.
Json template_content(const Values& message, const char* content_key) {
  Json content = message.object().at(content_key);
  if (!content.is_array()) return content;
  for (Json& part : content)
    if (part.contains("value")) part = Json{{"type", "text"}, {"text", part["value"]}};  // LLaMA-Factory's key
  return content;
}

/// A message for the template, with all of its keys but those that are null, which tables fill in.
Message read_message(const Values& in, const std::string& role, const char* role_key, const char* content_key) {
  Message message{role, ""};
  Json keys = Json::object();
  auto& members = keys.get_ref<Json::object_t&>();
  for (const auto& [key, value] : in.object().items()) {
    if (key == role_key)
      members.emplace_back("role", role);
    else if (key == content_key)
      members.emplace_back("content", template_content(in, content_key));
    else if (!value.is_null() && key != "role" && key != "content")
      members.emplace_back(key, value);
  }
  const bool calls = role == "assistant" && (in.has(call_keys[0]) || in.has(call_keys[1]));
  const bool has_content = !in.is_null(content_key);
  if (has_content || !calls) message.content = in.content(content_key);
  if (!has_content || members.size() > 2 || in.is_list(content_key))
    message.keys = std::make_shared<const Json>(std::move(keys));
  return message;
}

std::vector<ChatTurn> read_messages(const Values& values, const std::string& key, bool supervise) {
  std::vector<ChatTurn> turns;
  for (const Values& message : values.objects(key)) {
    const std::string role = message.text("role");
    static const StringList known = {"system", "developer", "user", "assistant", "tool"};
    if (std::find(known.begin(), known.end(), role) == known.end())
      message.fail("role", "is '" + printable(role, 60) + "', not system, developer, user, assistant or tool");
    turns.push_back({read_message(message, role, "role", "content"),
                     is_target(message, supervise && role == "assistant"), message.name("")});
  }
  return turns;
}

Json parse_text(const Values& values, const std::string& key, const std::string& expected) {
  constexpr std::size_t max_depth = 64;
  try {
    return read_ordered_json(values.text(key), values.where() + ": '" + values.name(key) + "'", max_depth);
  } catch (const JsonSyntaxError&) {
    values.fail(key, "is not JSON; it must be " + expected);
  }
}

/// The message of ShareGPT's `function_call` turn, whose text is a call or a list of calls as LLaMA-Factory writes
/// them.
Message read_function_call(const Values& in) {
  const std::string expected = "{\"name\": …, \"arguments\": …}, or a list of such calls";
  Json calls = parse_text(in, "value", expected);
  if (!calls.is_array()) calls = Json::array({calls});
  Json tool_calls = Json::array();
  for (const Json& call : calls) {
    if (!call.is_object() || !call.contains("name") || !call.contains("arguments"))
      in.fail("value", "must be " + expected);
    tool_calls.push_back(Json{{"type", "function"}, {"function", call}});
  }
  const Json keys = {{"role", "assistant"}, {"content", ""}, {"tool_calls", tool_calls}};
  return {"assistant", "", std::make_shared<const Json>(keys)};
}

std::vector<ChatTurn> read_sharegpt(const Values& values) {
  std::vector<ChatTurn> turns;
  if (const std::string system = values.optional_text("system"); !system.empty())
    turns.push_back({{"system", system}, false});
  static const std::pair<const char*, const char*> roles[] = {
      {"human", "user"},       {"user", "user"}, {"gpt", "assistant"},           {"assistant", "assistant"},
      {"observation", "tool"}, {"tool", "tool"}, {"function_call", "assistant"}, {"system", "system"}};
  for (const Values& message : values.objects("conversations")) {
    const std::string from = message.text("from");
    const auto role =
        std::find_if(std::begin(roles), std::end(roles), [&](auto& known) { return from == known.first; });
    if (role == std::end(roles))
      message.fail("from", "is '" + printable(from, 60) +
                               "', not system, human (user), gpt (assistant), function_call or observation (tool)");
    turns.push_back(
        {from == "function_call" ? read_function_call(message) : read_message(message, role->second, "from", "value"),
         is_target(message, std::string_view(role->second) == "assistant"), message.name("")});
  }
  return turns;
}

/// The `tools` of a conversation, as a list or as the text of one. `is_sharegpt`: LLaMA-Factory leaves out the "type"
/// and "function" around each.
std::shared_ptr<const Json> read_tools(const Values& values, bool is_sharegpt) {
  if (!values.has("tools")) return nullptr;
  const Json& value = values.object().at("tools");
  if (value.is_string() && is_blank(values.text("tools"))) return nullptr;
  Json tools = value.is_string() ? parse_text(values, "tools", "a list of JSON schemas") : value;
  if (!tools.is_array() || std::any_of(tools.begin(), tools.end(), [](auto& tool) { return !tool.is_object(); }))
    values.fail("tools", "must be a list of JSON schemas, or such a list as text");
  if (tools.empty()) return nullptr;
  for (Json& tool : tools)
    if (is_sharegpt && tool.value("type", Json()) != "function") tool = Json{{"type", "function"}, {"function", tool}};
  return std::make_shared<const Json>(std::move(tools));
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

Record conversation(std::vector<ChatTurn> turns, const Values& values, bool is_sharegpt = false) {
  if (turns.empty()) throw InputError(values.where() + ": the conversation is empty");
  Record item;
  item.turns = std::move(turns);
  item.tools = read_tools(values, is_sharegpt);
  return item;
}

Record read_prompt_completion(const Values& values, const DataOptions&, bool) {
  Record item;
  if (values.is_list("prompt") != values.is_list("completion"))
    values.fail("completion", "must be a string if 'prompt' is one, a list of messages if 'prompt' is one");
  if (values.is_list("prompt")) {
    std::vector<ChatTurn> turns = read_messages(values, "prompt", false);
    for (ChatTurn& turn : read_messages(values, "completion", true)) turns.push_back(std::move(turn));
    return conversation(std::move(turns), values);
  }
  item.prompt = values.text("prompt");
  item.completion = values.text("completion");
  return item;
}

/// A format of records. A new one is a row of the table, and a name that an objective lists.
struct Format {
  const char* name;
  StringList keys;  ///< a record of this format has all of them
  Record (*read)(const Values& values, const DataOptions& options, bool has_chat_template);
};

const std::vector<Format>& formats() {
  static const std::vector<Format> all = {{"messages",
                                           {"messages"},
                                           [](const Values& values, const DataOptions&, bool) {
                                             return conversation(read_messages(values, "messages", true), values);
                                           }},
                                          {"sharegpt",
                                           {"conversations"},
                                           [](const Values& values, const DataOptions&, bool) {
                                             return conversation(read_sharegpt(values), values, true);
                                           }},
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

bool has_keys(const Json& record, const Format& format) {
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

int64_t num_empty_answers(const Record& record) {
  if (record.turns.empty()) return is_blank(record.completion) ? 1 : 0;
  return std::count_if(record.turns.begin(), record.turns.end(), [](const ChatTurn& turn) {
    return turn.is_target && is_blank(turn.message.content) && !has_calls(turn.message);
  });
}

bool has_calls(const Message& message) {
  if (!message.keys) return false;
  const std::string where;
  const Values keys(*message.keys, where, "");
  return std::any_of(std::begin(call_keys), std::end(call_keys), [&](const char* key) { return keys.has(key); });
}

std::string detect_format(const Json& record, const StringList& among, const std::string& where) {
  for (const Format& format : formats())
    if (is_among(among, format) && has_keys(record, format)) return format.name;
  refuse_list_of_records(record, where);
  throw InputError(where + ": the keys " + keys_of(record) + " match no known format (" + known_formats(among) + ")");
}

void refuse_list_of_records(const Json& object, const std::string& where) {
  const auto is_record = [](const Json& value) {
    const auto fits = [&](const Format& format) { return has_keys(value, format); };
    return value.is_object() && std::any_of(formats().begin(), formats().end(), fits);
  };
  for (const auto& [key, value] : object.items())
    if (value.is_array() && !value.empty() && is_record(value[0]))
      throw InputError(where + ": the records are in the list '" + printable(key, 60) +
                       "' of this object; write that list alone to the file: [ … ]");
}

Record read_record(const Json& record, const std::string& format, const DataOptions& options, bool has_chat_template,
                   const std::string& where) {
  const auto known =
      std::find_if(formats().begin(), formats().end(), [&](const Format& f) { return format == f.name; });
  if (known == formats().end()) throw std::logic_error("no record format is named '" + format + "'");
  if (!has_keys(record, *known)) {
    refuse_list_of_records(record, where);
    throw InputError(where + ": has " + keys_of(record) + ", but " +
                     (options.format == "auto" ? "earlier records have" : "[data] sets") + " format " + format + " (" +
                     known_formats(options.formats) + ")");
  }
  const Values values(record, where, "");
  const bool is_conversation =
      format == "messages" || format == "sharegpt" || (format == "prompt_completion" && values.is_list("prompt"));
  if (options.format == "auto") refuse_unused(record, is_conversation, where);
  Record item = known->read(values, options, has_chat_template);
  item.source = where;
  item.needs_tools = options.format == "auto";
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

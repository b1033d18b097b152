// Shows for data sets: five formats are detected; all of an answer and the EOS token after it are targets, and nothing
// else is; a message's keys, calls and tools are rendered or refused; keys that exclude a message are read; truncated,
// skipped and empty examples are counted; errors have file and line, and say what a file that is not JSON is; records
// are held out, not examples; and the order is a pure function of seed and epoch.
#include "peft/data/dataset.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <string_view>

#include "peft/base/error.h"
#include "peft/data/sampler.h"
#include "support/test.h"

using namespace peft;
namespace fs = std::filesystem;

namespace {

/// Bytes as tokens; <e> ends.
constexpr const char* marked_turns =
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<e>\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}";

TextPipeline bytes_text(bool chat, const std::string& chat_template = marked_turns) {
  nlohmann::json vocabulary = {{"<e>", 0}};
  for (int c = 33; c < 127; ++c) vocabulary[std::string(1, static_cast<char>(c))] = c;
  vocabulary["\u0120"] = 200;  // a space
  vocabulary["\u010a"] = 201;  // a newline
  const nlohmann::json tokenizer = {
      {"version", "1.0"},
      {"added_tokens",
       {{{"id", 0},
         {"content", "<e>"},
         {"single_word", false},
         {"lstrip", false},
         {"rstrip", false},
         {"normalized", false},
         {"special", true}}}},
      {"normalizer", nullptr},
      {"pre_tokenizer",
       {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
      {"model",
       {{"type", "BPE"},
        {"dropout", nullptr},
        {"unk_token", nullptr},
        {"continuing_subword_prefix", nullptr},
        {"end_of_word_suffix", nullptr},
        {"fuse_unk", false},
        {"byte_fallback", false},
        {"vocab", vocabulary},
        {"merges", nlohmann::json::array()}}}};
  TextPipeline text;
  text.tokenizer = Tokenizer::from_json(tokenizer.dump(), "test");
  if (chat) text.chat_template = ChatTemplate::parse(chat_template, {{"eos_token", "<e>"}});
  text.eos_ids = {0};
  return text;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / ("peft_dataset_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  std::string put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
    return (path / name).string();
  }
};

/// What the model must say, of all examples.
std::string learned(const Dataset& set, const TextPipeline& text) {
  std::string all;
  for (const Example& example : set.examples) {
    std::vector<int64_t> ids;
    for (const int64_t label : example.labels)
      if (label != ignored_label) ids.push_back(label);
    all += text.tokenizer->decode(ids, false) + "|";
  }
  return all;
}

Dataset load(const std::string& file, const TextPipeline& text, DataOptions options = {}) {
  return load_dataset({file}, options, text);
}

/// The text of the examples, with target tokens in ( ).
std::string shown(const Dataset& set, const TextPipeline& text) {
  std::string all;
  for (const Example& example : set.examples) {
    for (std::size_t i = 0; i < example.ids.size(); ++i) {
      const bool is_target = example.labels[i] != ignored_label;
      const bool was_target = i > 0 && example.labels[i - 1] != ignored_label;
      if (is_target != was_target) all += is_target ? "(" : ")";
      all += text.tokenizer->decode({example.ids[i]}, false);
    }
    all += example.labels.back() != ignored_label ? ")|" : "|";
  }
  return all;
}

std::string error_of(const std::string& file, const TextPipeline& text, const DataOptions& options = {}) {
  try {
    load(file, text, options);
  } catch (const InputError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("each format is detected, and only answers are targets") {
  const Folder folder;
  const TextPipeline text = bytes_text(true);
  struct Row {
    const char *format, *record, *learned;
  };
  const Row rows[] = {
      {"text", R"({"text":"ab"})", "ab<e>|"},
      {"prompt_completion", R"({"prompt":"ab","completion":"cd"})", "cd<e>|"},
      {"alpaca", R"({"instruction":"do","input":"x","output":"done"})", "done<e>|"},
      {"messages",
       R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},)"
       R"({"role":"user","content":"r"},{"role":"assistant","content":"b"}]})",
       "a<e>b<e>|"},
      {"sharegpt", R"({"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}]})", "a<e>|"},
  };
  for (const Row& row : rows) {
    INFO(row.format);
    const Dataset set = load(folder.put("x.jsonl", row.record), text);
    CHECK(set.format == row.format);
    CHECK(learned(set, text) == row.learned);
    const Dataset array = load(folder.put("x.json", std::string("[") + row.record + "]"), text);
    CHECK(learned(array, text) == learned(set, text));
  }
}

TEST_CASE("everything is a target up to the end, where an EOS token follows unless there is one") {
  const Folder folder;
  const TextPipeline plain = bytes_text(false), chat = bytes_text(true);
  const TextPipeline endless = bytes_text(true,
                                          "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
                                          "{% if add_generation_prompt %}[assistant]{% endif %}");
  const auto of = [&](const TextPipeline& text, const std::string& record) {
    return shown(load(folder.put("x.jsonl", record), text), text);
  };
  CHECK(of(plain, R"({"text":"a<e>b"})") == "(a<e>b<e>)|");
  CHECK(of(plain, R"({"text":"a<e>b<e>"})") == "(a<e>b<e>)|");
  CHECK(of(plain, R"({"text":"a<e>\n"})") == "(a<e>\n<e>)|");
  CHECK(of(plain, R"({"text":"[user]q<e>\n[assistant]a"})") == "([user]q<e>\n[assistant]a<e>)|");
  CHECK(of(plain, R"({"prompt":"p","completion":"a<e>b"})") == "p(a<e>b<e>)|");
  CHECK(of(plain, R"({"prompt":"p<e>","completion":"a<e> "})") == "p<e>(a<e> <e>)|");
  const std::string messages = R"({"messages":[{"role":"user","content":"q<e>r"},)"
                               R"({"role":"assistant","content":"a<e>b"}]})";
  CHECK(of(chat, messages) == "[user]q<e>r<e>\n[assistant](a<e>b<e>)\n|");
  CHECK(of(endless, messages) == "[user]q<e>r[assistant](a<e>b<e>)|");
}

TEST_CASE("the first answer of a conversation that the assistant opens is a target") {
  const Folder folder;
  const std::string record = R"({"messages":[{"role":"assistant","content":"hi"},{"role":"user","content":"q"},)"
                             R"({"role":"assistant","content":"a"}]})";
  for (const char* begin : {"", "<e>", "{% if messages[0].role != 'system' %}[system]be<e>\n{% endif %}"}) {
    INFO(begin);
    const TextPipeline text = bytes_text(true, begin + std::string(marked_turns));
    const std::string before = begin == std::string_view("<e>") ? "<e>" : *begin ? "[system]be<e>\n" : "";
    CHECK(shown(load(folder.put("x.jsonl", record), text), text) ==
          before + "[assistant](hi<e>)\n[user]q<e>\n[assistant](a<e>)\n|");
  }
  // Without a generation prompt an answer begins where the text before it ends.
  const TextPipeline bare = bytes_text(true, "<e>{% for m in messages %}{{ m.content }}<e>{% endfor %}");
  CHECK(shown(load(folder.put("x.jsonl", record), bare), bare) == "<e>(hi<e>)q<e>(a<e>)|");
  const std::string excluded = R"({"messages":[{"role":"assistant","content":"hi","weight":0},)"
                               R"({"role":"user","content":"q"},{"role":"assistant","content":"a"}]})";
  const TextPipeline text = bytes_text(true);
  CHECK(learned(load(folder.put("x.jsonl", excluded), text), text) == "a<e>|");
}

TEST_CASE("every key of a message and the tools of a record reach the chat template") {
  const Folder folder;
  const TextPipeline text = bytes_text(
      true,
      "{% if tools %}{% for t in tools %}{{ t.function.name }};{% endfor %}{% endif %}"
      "{% for m in messages %}[{{ m.role }}]{% if m.name %}{{ m.name }}:{% endif %}"
      "{% if m.thinking %}<{{ m.thinking.steps | join(',') }}>{% endif %}"
      "{% if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }}{{ c.function.arguments | tojson }}"
      "{% endfor %}{% endif %}"
      "{% if m.content is string %}{{ m.content }}{% elif m.content %}{% for p in m.content %}<{{ p.text }}>"
      "{% endfor %}{% endif %}<e>\n{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}");
  const auto of = [&](const std::string& record) { return shown(load(folder.put("x.jsonl", record), text), text); };
  CHECK(of(R"({"messages":[{"role":"user","name":"ann","content":"q","tool_calls":null},)"
           R"({"role":"assistant","content":"a","thinking":{"steps":["b","c"]}}]})") ==
        "[user]ann:q<e>\n[assistant](<b,c>a<e>)\n|");
  CHECK(of(R"({"messages":[{"role":"user","content":[{"type":"text","text":"q"},{"type":"text","text":"r"}]},)"
           R"({"role":"assistant","content":[{"type":"text","value":"a"}]}]})") ==
        "[user]<q><r><e>\n[assistant](<a><e>)\n|");
  const std::string call = R"({"name":"f","arguments":{"z":1,"a":[true,null]}})";
  const std::string tools = R"("tools":[{"type":"function","function":{"name":"f"}}])";
  const std::string rendered = "f;[user]q<e>\n[assistant](f{\"z\": 1, \"a\": [true, null]}<e>)\n|";
  for (const char* content : {R"("content":"",)", R"("content":null,)", ""})
    CHECK(of(std::string(R"({"messages":[{"role":"user","content":"q"},{"role":"assistant",)") + content +
             R"("tool_calls":[{"type":"function","function":)" + call + "}]}]," + tools + "}") == rendered);
  nlohmann::ordered_json sharegpt = {{"conversations",
                                      {{{"from", "human"}, {"value", "q"}},
                                       {{"from", "function_call"}, {"value", call}},
                                       {{"from", "observation"}, {"value", "o"}},
                                       {{"from", "gpt"}, {"value", "a"}}}},
                                     {"tools", R"([{"name": "f"}])"}};
  const std::string both = rendered.substr(0, rendered.size() - 1) + "[tool]o<e>\n[assistant](a<e>)\n|";
  CHECK(of(sharegpt.dump()) == both);
  sharegpt["conversations"][1]["value"] = "[" + call + "]";
  CHECK(of(sharegpt.dump()) == both);
  sharegpt["conversations"][1]["value"] = "call f";
  const std::string error = error_of(folder.put("x.jsonl", sharegpt.dump()), text);
  CHECK(error.find("x.jsonl:1: 'conversations[1].value' is not JSON; it must be {\"name\"") != std::string::npos);
  CHECK(error_of(folder.put("x.jsonl", R"({"messages":[{"role":"user","content":"q","id":18446744073709551615},)"
                                       R"({"role":"assistant","content":"a"}]})"),
                 text)
            .find("the number 18446744073709551615 has more than 64 bits") != std::string::npos);
}

TEST_CASE("what a chat template does not render is refused") {
  const Folder folder;
  const TextPipeline text = bytes_text(true);
  const auto refused = [&](const std::string& record, const std::string& part, const DataOptions& options = {}) {
    const std::string error = error_of(folder.put("x.jsonl", record), text, options);
    INFO(error);
    CHECK(error.find("x.jsonl:1: " + part) != std::string::npos);
  };
  const std::string question = R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"")";
  refused(question + R"(,"tool_calls":[{"function":{"name":"f"}}]}]})",
          "'messages[1].tool_calls' is not rendered by the chat template");
  refused(question + R"(,"function_call":{"name":"f","arguments":"{}"}}]})",
          "'messages[1].function_call' is not rendered by the chat template");
  refused(R"({"conversations":[{"from":"human","value":"q"},)"
          R"({"from":"function_call","value":"{\"name\":\"f\",\"arguments\":{}}"}]})",
          "'conversations[1].tool_calls' is not rendered");
  const std::string tools = question + R"(}],"tools":[{"type":"function"}]})";
  refused(tools, "'tools' is not rendered by the chat template");
  DataOptions named;
  named.format = "messages";
  CHECK(learned(load(folder.put("x.jsonl", tools), text, named), text) == "<e>|");
  refused(question + R"(}],"tools":[1]})", "'tools' must be a list of JSON schemas");
  refused(question + R"(}],"functions":[{"name":"f"}]})", "'functions' (preferences, tools");
  refused(R"({"messages":[{"role":"user","content":[{"type":"image","url":"u"}]}]})",
          "'messages[0].content[0].type' is not supported");
  // A template that would write a list as Python shows it gets the text of the parts.
  CHECK(shown(load(folder.put("x.jsonl", R"({"messages":[{"role":"user","content":[{"type":"text","text":"q"},)"
                                         R"({"type":"text","text":"r"}]},{"role":"assistant","content":"a"}]})"),
                   text),
              text) == "[user]qr<e>\n[assistant](a<e>)\n|");
}

TEST_CASE(
    "a message is excluded from the targets by the keys of other programs, which are refused where they ask for more") {
  const Folder folder;
  const TextPipeline text = bytes_text(true);
  const auto record = [](const std::string& user, const std::string& assistant) {
    return R"({"messages":[{"role":"user","content":"q")" + user + R"(},{"role":"assistant","content":"a")" +
           assistant + R"(},{"role":"user","content":"r"},{"role":"assistant","content":"b"}]})";
  };
  const auto of = [&](const std::string& json) { return learned(load(folder.put("x.jsonl", json), text), text); };
  for (const std::string key : {"train", "training", "trainable", "loss", "loss_scale", "weight", "loss_weight"})
    for (const char* value : {"false", "0", "0.0", "true", "1", "null"}) {
      const std::string json = ",\"" + key + "\":" + value;
      INFO(json);
      const bool is_excluded = *value == 'f' || *value == '0';
      CHECK(of(record("", json)) == (is_excluded ? "b<e>|" : "a<e>b<e>|"));
      const bool is_wanted = *value == 't' || *value == '1';
      const bool is_weight = key.ends_with("weight");
      const std::string error = error_of(folder.put("x.jsonl", record(json, "")), text);
      CHECK((error == "") == (is_weight || !is_wanted));
      if (error != "") CHECK(error.find("x.jsonl:1: 'messages[0]." + key + "' is true, but only") != std::string::npos);
    }
  CHECK(learned(load(folder.put("x.jsonl", R"({"conversations":[{"from":"human","value":"q"},)"
                                           R"({"from":"gpt","value":"a","loss":false},{"from":"gpt","value":"b"}]})"),
                     text),
                text) == "b<e>|");
  const auto refused = [&](const std::string& json, const std::string& part) {
    const std::string error = error_of(folder.put("x.jsonl", json), text);
    INFO(error);
    CHECK(error.find("x.jsonl:1: " + part) != std::string::npos);
  };
  refused(record("", R"(,"weight":0.5)"), "'messages[1].weight' must be true or false, or 1 or 0");
  refused(record("", R"(,"train":"no")"), "'messages[1].train' must be true or false, or 1 or 0");
  for (const char* key : {"loss_mask", "train_detail", "training_detail"})
    refused(record("", ",\"" + std::string(key) + "\":[0,1]"),
            "'messages[1]." + std::string(key) + "' is not supported; write \"train\": false");
  refused(R"({"loss_mask":[0,1],)" + record("", "").substr(1), "'loss_mask' (preferences");
  refused(R"({"text":"a","loss_mask":[1]})", "'loss_mask' (preferences");
}

TEST_CASE("empty answers are counted") {
  const Folder folder;
  const TextPipeline text = bytes_text(true);
  const auto count = [&](const std::string& record) { return load(folder.put("x.jsonl", record), text).empty_answers; };
  const std::string other = "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},";
  CHECK(count(other + R"({"role":"assistant","content":""},{"role":"assistant","content":" \n"}]})") == 2);
  CHECK(count(other + R"({"role":"assistant","content":[]},{"role":"assistant","content":"a"}]})") == 1);
  CHECK(count(other + R"({"role":"assistant","content":"","weight":0},{"role":"assistant","content":"a"}]})") == 0);
  CHECK(count(R"({"instruction":"i","output":""})") == 1);
  CHECK(count(R"({"prompt":"p","completion":"  "})") == 1);
  CHECK(count("{\"text\":\" \"}\n{\"text\":\"a\"}") == 1);
  const Dataset skipped = load(folder.put("x.jsonl", "{\"text\":\"\"}\n{\"text\":\"a\"}"), text);
  CHECK(skipped.empty_answers == 0);  // without a BOS token nothing precedes the EOS token
  CHECK(skipped.skipped == 1);
  CHECK(skipped.num_read == 2);
}

TEST_CASE("answers whose thinking the template cuts out are counted") {
  const Folder folder;
  TextPipeline text = bytes_text(true);
  const std::string file = folder.put(
      "x.jsonl",
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think>\nwhy\n</think>\n\na"},)"
      R"({"role":"user","content":"r"},{"role":"assistant","content":"why</think>b"}]})"
      "\n"
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"<think></think>a"}]})");
  CHECK(load(file, text).cut_thinking == 0);
  const std::string key = folder.put(
      "key.jsonl",
      R"({"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a","thinking":"why "}]})");
  CHECK(load(key, text).cut_thinking == 1);
  text.chat_template = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}]{{ m.thinking }}{{ m.content }}<e>\n{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}",
      {});
  CHECK(load(key, text).cut_thinking == 0);
  text.chat_template = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}]{{ m.content.split('</think>')[-1] }}<e>\n{% endfor %}"
      "{% if add_generation_prompt %}[assistant]{% endif %}",
      {});
  CHECK(load(file, text).cut_thinking == 2);
  // earlier answers lose theirs, but are rendered as the last ones, too
  text.chat_template = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}]{{ m.content if loop.last else m.content.split('</think>')[-1] }}<e>\n"
      "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}",
      {});
  CHECK(load(file, text).cut_thinking == 0);
}

TEST_CASE("truncated and skipped examples are counted") {
  const Folder folder;
  const TextPipeline text = bytes_text(false);
  DataOptions options;
  options.max_length = 4;
  const std::string file = folder.put("x.jsonl",
                                      "{\"prompt\":\"abcdef\",\"completion\":\"x\"}\n"
                                      "{\"prompt\":\"ab\",\"completion\":\"cdef\"}\n"
                                      "{\"prompt\":\"a\",\"completion\":\"b\"}\n");
  const Dataset set = load(file, text, options);
  CHECK(set.examples.size() == 2);
  CHECK(set.truncated == 2);
  CHECK(set.skipped == 1);
  CHECK(set.truncated_tokens == 4 + 3);
  CHECK(set.num_target_tokens == 2 + 2);
}

TEST_CASE("wrong data is reported with file and line") {
  const Folder folder;
  const TextPipeline text = bytes_text(true);
  const auto refused = [&](const std::string& bytes, const std::string& part) {
    const std::string error = error_of(folder.put("bad.jsonl", bytes), text);
    INFO(error);
    CHECK(error.find(part) != std::string::npos);
    CHECK(error.find("bad.jsonl") != std::string::npos);
  };
  refused("{\"text\":\"a\"}\n{\"text\":\n", "bad.jsonl:2");
  refused("{\"text\":\"a\"}\n\n{\"prompt\":\"a\",\"completion\":\"b\"}\n", "bad.jsonl:3");
  refused("{\"texts\":\"a\"}\n", "no known format");
  refused("{\"text\":7}\n", "must be a string");
  refused("{\"text\":\"a\",\"text\":\"b\"}\n", "twice");
  refused("", "empty");
  refused("{\"messages\":[]}\n", "bad.jsonl:1: the conversation is empty");
  refused("{\"text\":\"a\"", "bad.jsonl:1");
  CHECK(error_of((folder.path / "absent.jsonl").string(), text).find("absent.jsonl") != std::string::npos);
  CHECK(load(folder.put("ok.jsonl", "\xEF\xBB\xBF{\"text\":\"ab\"}\r\n\r\n{\"text\":\"cd\"}\r\n"), text)
            .examples.size() == 2);
}

TEST_CASE("a file that is not JSON is named for what it is") {
  const Folder folder;
  const TextPipeline text = bytes_text(false);
  const auto refused = [&](const std::string& bytes, const std::string& part, const char* name = "bad.jsonl") {
    const std::string error = error_of(folder.put(name, bytes), text);
    INFO(error);
    CHECK(error.find((part.starts_with(":") ? name : "") + part) != std::string::npos);
  };
  const auto wide = [](const std::string& narrow, bool big) {
    std::string out;
    for (const char c : narrow) out += big ? std::string{'\0', c} : std::string{c, '\0'};
    return out;
  };
  for (const std::string json : {"{\"text\":\"a\"}\n", "[{\"text\":\"a\"}]"})
    for (const bool big : {false, true}) {
      refused(wide(json, big), ": looks like UTF-16 or UTF-32, not UTF-8; convert it: iconv");
      refused((big ? "\xFE\xFF" : "\xFF\xFE") + wide(json, big), ": looks like UTF-16");
      refused(wide(wide(json, big), big), ": looks like UTF-16");
    }
  refused("{\"text\":\"a\"}\n{\"text\":\"caf\xe9\"}\n",
          ":2: not UTF-8 (at column 13); if it is Windows-1252 or Latin-1");
  refused("[{\"text\":\"a\"},\n{\"x\":\"\xc3\xa9\",\n\"text\":\"\xe9\"}]", ":3: not UTF-8 (at column 9)", "bad.json");
  refused("{\"text\":\"a\"}\r{\"text\":\"b\"}\r", ": its lines end in CR alone; convert it: tr '\\r' '\\n'");
  for (const char* value : {"NaN", "nan", "Infinity", "-Infinity", "inf"})
    refused("{\"text\":\"a\",\"x\":[" + std::string(value) + "]}", "JSON has no NaN or infinity; write null");
  refused("{\"text\":None}", ":1: not JSON (at column 9); JSON writes None as null");
  refused("{\"text\":True}", "JSON writes true and false in lower case");
  refused("{'text':'a'}", ":1: not JSON (at column 2); JSON writes strings in double quotes");
  refused("{\"text\":1e999}", "the number is out of range");
  refused(std::string("{\"text\":\"a\"}\0", 13) + "\n", ":1: not JSON (at column 13); there is a NUL byte");
  const std::string spread = "{\n  \"text\": \"a\"\n}\n";
  refused(spread, ":1: the object that starts here spans several lines; write each record in one line");
  refused("{\"text\":\"a\"}\n" + spread + spread, ":2: the object that starts here spans several lines");
  refused("{\"text\":\n\"a\"}", ":1: the object that starts here spans several lines");
  refused("{\"text\":\"a\"\n{\"text\":\"b\"}\n", ":1: not JSON (at column 12); a data file holds one object per line");
  const std::string records = "[{\"text\":\"a\"},\n{\"text\":\"b\"}]";
  for (const char* name : {"bad.json", "bad.jsonl"}) {
    refused("{\"data\":[{\"text\":\"a\"}]}", ":1: the records are in the list 'data' of this object", name);
    refused("{\"data\":[\n{\"text\":\"a\"},\n{\"text\":\"b\"}\n]}", ":1: the records are in the list 'data'", name);
    refused("{\"version\":1,\n\"data\":" + records + "}", ":1: the records are in the list 'data' of this object",
            name);
  }
  refused("{\"data\":[{\"role\":\"user\"}]}", ":1: the keys 'data' match no known format");

  CHECK(load(folder.put("cr.jsonl", "{\"text\":\"a\"}\r"), text).examples.size() == 1);
  CHECK(load(folder.put("spread.json", "[" + spread + "," + spread + "]"), text).examples.size() == 2);
}

TEST_CASE("a path that a shell would have expanded says so") {
  const Folder folder;
  const TextPipeline text = bytes_text(false);
  folder.put("a.jsonl", "{\"text\":\"a\"}");
  const std::pair<const char*, const char*> rows[] = {
      {"*.jsonl", "patterns are not expanded: list the files"},
      {"a?.jsonl", "patterns are not expanded: list the files"},
      {"$DATA/a.jsonl", "variables are not expanded: write the path out"},
      {"~/a.jsonl", "'~' is not expanded: write the path of the home folder"},
  };
  for (const auto& [name, hint] : rows)
    CHECK(error_of((folder.path / name).string(), text) ==
          (folder.path / name).string() + ": there is no such data file; " + hint);
  CHECK(error_of(folder.path.string(), text) == folder.path.string() + ": is a folder; name the data files in it");
  CHECK(error_of((folder.path / "b.jsonl").string(), text) ==
        (folder.path / "b.jsonl").string() + ": there is no such data file");
}

TEST_CASE("a conversation that takes too long to render is refused") {
  const Folder folder;
  const TextPipeline text = bytes_text(true);
  const auto conversation = [](int turns, bool learned) {
    nlohmann::json messages = nlohmann::json::array();
    for (int i = 0; i < turns; ++i) {
      messages.push_back({{"role", i % 2 == 0 ? "user" : "assistant"}, {"content", "x"}});
      if (i % 2 == 1 && i + 1 < turns && !learned) messages.back()["weight"] = 0;
    }
    return nlohmann::json{{"messages", messages}}.dump();
  };
  CHECK(error_of(folder.put("long.jsonl", conversation(2048, true)), text)
            .find("long.jsonl:1: 1024 answers in a "
                  "conversation of 2048 messages") != std::string::npos);
  DataOptions untruncated;
  untruncated.max_length = 100'000;
  CHECK(learned(load(folder.put("one.jsonl", conversation(2048, false)), text, untruncated), text) == "x<e>|");
}

TEST_CASE("the order of an epoch is a permutation, and always the same one") {
  for (const std::size_t size : {1u, 2u, 91u, 1000u}) {
    std::vector<std::size_t> order = epoch_order(size, 42, 3);
    CHECK(order == epoch_order(size, 42, 3));
    if (size > 50) {
      CHECK(order != epoch_order(size, 42, 4));
      CHECK(order != epoch_order(size, 43, 3));
    }
    std::sort(order.begin(), order.end());
    for (std::size_t i = 0; i < size; ++i) CHECK(order[i] == i);
  }
}

TEST_CASE("batches contain each example once, and packed batches are within their limit of tokens") {
  Dataset data;
  for (int i = 1; i <= 50; ++i)
    data.examples.push_back({std::vector<int64_t>(static_cast<std::size_t>(i % 9 + 2), 5), {}});
  for (Example& example : data.examples) example.labels = example.ids;
  for (const bool packing : {false, true}) {
    std::vector<int> seen(data.examples.size(), 0);
    for (const auto& batch : epoch_batches(data, 4, packing, 10, 1, 0)) {
      int64_t tokens = 0;
      for (const std::size_t index : batch) {
        ++seen[index];
        tokens += static_cast<int64_t>(data.examples[index].ids.size());
      }
      if (packing)
        CHECK(tokens <= 40);
      else
        CHECK(batch.size() <= 4);
    }
    CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
  }
}

TEST_CASE("a batch concatenates examples, and positions restart in each") {
  Dataset data;
  data.examples = {{{1, 2, 3}, {ignored_label, 2, 3}}, {{4, 5}, {4, 5}}};
  const Batch batch = make_batch(data, {1, 0});
  CHECK(batch.ids == std::vector<int64_t>{4, 5, 1, 2, 3});
  CHECK(batch.positions == std::vector<int64_t>{0, 1, 0, 1, 2});
  CHECK(batch.cu_seqlens == std::vector<int64_t>{0, 2, 5});
  CHECK(batch.num_target_tokens() == 3);  // the first token of an example is said from nothing
}

TEST_CASE("a split holds out its ratio of the records and loses none") {
  Dataset data;
  for (int64_t i = 0; i < 20; ++i) data.examples.push_back({{i, i}, {i, i}, 0, 1, i});
  Dataset train = data;
  const Dataset eval = split_dataset(train, 0.25, 7);
  CHECK(eval.examples.size() == 5);
  CHECK(train.examples.size() == 15);
  std::vector<int64_t> ids;
  for (const Dataset* part : std::initializer_list<const Dataset*>{&train, &eval})
    for (const Example& example : part->examples) ids.push_back(example.ids[0]);
  std::sort(ids.begin(), ids.end());
  for (int64_t i = 0; i < 20; ++i) CHECK(ids[static_cast<std::size_t>(i)] == i);
}

TEST_CASE("the examples of a record are on one side of a split") {
  const Folder folder;
  // As Qwen3's does, this template marks the last turn, so that each answer is an example.
  const TextPipeline text = bytes_text(true,
                                       "{% for m in messages %}[{{ m.role }}]"
                                       "{% if loop.last and m.role == 'assistant' %}!{% endif %}"
                                       "{{ m.content }}<e>{% endfor %}"
                                       "{% if add_generation_prompt %}[assistant]{% endif %}");
  std::string records;
  for (int i = 0; i < 20; ++i) {
    nlohmann::json messages = nlohmann::json::array();
    for (int turn = 0; turn <= i % 4 * 2 + 1; ++turn)
      messages.push_back({{"role", turn % 2 == 0 ? "user" : "assistant"},
                          {"content", std::string(static_cast<std::size_t>(i) + 1, 'x')}});
    records += (i == 0 ? "[" : ",") + nlohmann::json{{"messages", messages}}.dump();  // all in one line
  }
  const Dataset data = load(folder.put("x.json", records + "]"), text);
  REQUIRE(data.examples.size() == 5 * (1 + 2 + 3 + 4));
  std::set<int64_t> all;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    Dataset train = data;
    const Dataset eval = split_dataset(train, 0.2, seed);
    std::set<int64_t> held, left;
    for (const Example& example : eval.examples) held.insert(example.record);
    for (const Example& example : train.examples) left.insert(example.record);
    CHECK(held.size() == 4);
    CHECK(left.size() == 16);
    for (const int64_t record : held) CHECK_FALSE(left.contains(record));
    CHECK(eval.examples.size() + train.examples.size() == data.examples.size());
    CHECK(train.num_read == data.num_read);
    all.insert(held.begin(), held.end());
  }
  CHECK(all.size() > 4);  // other seeds hold out other records
  Dataset one = load(folder.put("y.json", records.substr(0, records.find("},{\"messages")) + "}]"), text);
  CHECK_THROWS_AS(split_dataset(one, 0.2, 1), InputError);
}

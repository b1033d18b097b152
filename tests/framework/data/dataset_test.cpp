// Shows for data sets: five formats are detected; only the answers and the EOS tokens after them are targets; truncated
// and skipped examples are counted; errors have file and line; and the order is a pure function of seed and epoch.
#include "peft/data/dataset.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/data/sampler.h"
#include "support/test.h"

using namespace peft;
namespace fs = std::filesystem;

namespace {

/// Bytes as tokens; <e> ends.
TextPipeline bytes_text(bool chat) {
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
  if (chat)
    text.chat_template = ChatTemplate::parse(
        "{% for m in messages %}[{{ m.role }}]{{ m.content }}<e>\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}",
        {{"eos_token", "<e>"}});
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

TEST_CASE("a split holds out its ratio of the examples and loses none") {
  Dataset data;
  for (int64_t i = 0; i < 20; ++i) data.examples.push_back({{i, i}, {i, i}});
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

// Shows that a small tokenizer.json gives the ids of HF tokenizers (tests/parity compares real ones), and that whatever
// is malformed or not implemented is an InputError with its location.
#include "peft/text/tokenizer/tokenizer.h"

#include <thread>

#include "framework/text/tokenizer/small_tokenizer.h"
#include "peft/base/error.h"
#include "support/test.h"

namespace {

using nlohmann::json;
using Ids = std::vector<int64_t>;

std::shared_ptr<const peft::Tokenizer> make(const json& document) {
  return peft::Tokenizer::from_json(document.dump(), "t.json");
}

/// The error message for this tokenizer.json.
std::string error_of(const std::string& text) {
  try {
    peft::Tokenizer::from_json(text, "t.json");
  } catch (const peft::InputError& error) {
    return error.what();
  }
  return "no error";
}

std::string error_with(const char* pointer, const json& value) {
  json document = small_tokenizer();
  document[json::json_pointer(pointer)] = value;
  return error_of(document.dump());
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != text.npos; }

json added(int id, const char* content, const char* option = nullptr) {
  json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", false}};
  if (option != nullptr) token[option] = true;
  return token;
}

}  // namespace

TEST_CASE("merges are applied by rank, and added tokens are found in the text") {
  const auto tokenizer = make(small_tokenizer());
  CHECK(tokenizer->encode("abc", true) == Ids{5});
  CHECK(tokenizer->encode("bcab", true) == Ids{7, 4});
  CHECK(tokenizer->encode("a<s>b", true) == Ids{1, 8, 2});
  CHECK(tokenizer->encode("", true) == Ids{});
  CHECK(tokenizer->decode({5, 8, 1}, false) == "abc<s>a");
  CHECK(tokenizer->decode({5, 8, 1}, true) == "abca");
  CHECK(tokenizer->decode({5, 99, -1}, true) == "abc");
  CHECK(tokenizer->size() == 9);
  CHECK(tokenizer->id("<s>") == 8);
  CHECK_FALSE(tokenizer->id("d"));
  CHECK(tokenizer->token(7) == "bc");
  CHECK(tokenizer->token(9).empty());
}

TEST_CASE("characters without a token become unk_token, each one or fused") {
  json document = small_tokenizer();
  CHECK(make(document)->encode("xya", true) == Ids{0, 0, 1});
  document["model"]["fuse_unk"] = true;
  CHECK(make(document)->encode("xya", true) == Ids{0, 1});
  document["model"]["unk_token"] = "gone";
  CHECK_THROWS_WITH(make(document)->encode("x", true), Catch::Contains("unk_token 'gone' is not in the vocabulary"));
}

TEST_CASE("added tokens respect lstrip, rstrip, single_word and normalized") {
  json document = small_tokenizer();
  document["normalizer"] = {{"type", "Lowercase"}};
  document["added_tokens"].push_back(added(9, "[L]", "lstrip"));
  document["added_tokens"].push_back(added(10, "[R]", "rstrip"));
  document["added_tokens"].push_back(added(11, "w", "single_word"));
  document["added_tokens"].push_back(added(12, "[N]", "normalized"));
  document["added_tokens"].push_back(added(13, "[N"));
  const auto tokenizer = make(document);
  CHECK(tokenizer->encode("a  [L]b", true) == Ids{1, 9, 2});
  CHECK(tokenizer->encode("a[R]  b", true) == Ids{1, 10, 2});
  CHECK(tokenizer->encode("w", true) == Ids{11});
  CHECK(tokenizer->encode("aw", true) == Ids{1, 0});
  CHECK(tokenizer->encode("B[n]A", true) == Ids{2, 12, 1});
  CHECK(tokenizer->encode("B[l]", true) == Ids{2, 0, 0, 0});
}

TEST_CASE("a long word does not take quadratic time, and threads can share a tokenizer") {
  const auto tokenizer = make(small_tokenizer());
  std::string word;
  for (int i = 0; i < 300000; ++i) word += "abc";
  std::vector<std::size_t> sizes(4);
  std::vector<std::thread> threads;
  for (auto& size : sizes) threads.emplace_back([&] { size = tokenizer->encode(word, true).size(); });
  for (std::thread& thread : threads) thread.join();
  CHECK(sizes == std::vector<std::size_t>(4, 300000));
}

TEST_CASE("spaces around added tokens are scanned once, not for each token among them") {
  const std::string spaces(300000, ' ');
  for (const char* side : {"lstrip", "rstrip"}) {
    json document = small_tokenizer();
    document["added_tokens"].push_back(added(9, " ", side));
    CHECK(make(document)->encode(spaces + "a", true).size() == spaces.size() + 1);
  }
}

TEST_CASE("a post-processor adds its tokens only if add_special_tokens is set") {
  json document = small_tokenizer();
  document["post_processor"] = json::parse(R"({"type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [], "special_tokens": {"<s>": {"id": "<s>", "ids": [8], "tokens": ["<s>"]}}})");
  const auto tokenizer = make(document);
  CHECK(tokenizer->encode("a", true) == Ids{8, 1});
  CHECK(tokenizer->encode("a", false) == Ids{1});
}

TEST_CASE("pre-tokenizers split as HF tokenizers does") {
  const auto encode = [](const json& pre, const std::string& text) {
    json document = small_tokenizer();
    document["pre_tokenizer"] = pre;
    return make(document)->encode(text, true);
  };
  const json metaspace = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", true}};
  CHECK(encode(metaspace, "ab c") == Ids{6, 4, 6, 3});
  CHECK(encode(metaspace, "a<s>b") == Ids{6, 1, 8, 2});
  CHECK(encode({{"type", "WhitespaceSplit"}}, "a\u3000b") == Ids{1, 2});
  CHECK(encode({{"type", "Punctuation"}}, "a,b") == Ids{1, 0, 2});
  const auto split = [&](const char* behavior) {
    return encode({{"type", "Split"}, {"pattern", {{"String", "b"}}}, {"behavior", behavior}, {"invert", false}},
                  "abc");
  };
  CHECK(split("Isolated") == Ids{1, 2, 3});
  CHECK(split("Removed") == Ids{1, 3});
  CHECK(split("MergedWithPrevious") == Ids{4, 3});
  CHECK(split("MergedWithNext") == Ids{1, 7});
}

TEST_CASE("a match of no width splits and is replaced, as in HF tokenizers") {
  const auto encode = [](const char* pattern, const char* behavior, bool invert, const std::string& text) {
    json document = small_tokenizer();
    document["pre_tokenizer"] = {
        {"type", "Split"}, {"pattern", {{"Regex", pattern}}}, {"behavior", behavior}, {"invert", invert}};
    return make(document)->encode(text, true);
  };
  for (const char* behavior : {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext"})
    CHECK(encode("(?=b)", behavior, false, "abab") == Ids{1, 2, 1, 2});
  CHECK(encode("(?=c)", "Isolated", false, "abc") == Ids{4, 3});
  CHECK(encode("(?=b)", "Removed", true, "abab").empty());
  CHECK(encode("x*", "Isolated", false, "abc") == Ids{1, 2, 3});
  json document = small_tokenizer();
  document["normalizer"] = {{"type", "Replace"}, {"pattern", {{"Regex", "(?=b)"}}}, {"content", "a"}};
  CHECK(make(document)->encode("cb", true) == Ids{3, 4});
}

TEST_CASE("a type or option that is not implemented is refused with its name and location") {
  CHECK(error_with("/normalizer", {{"type", "Nmt"}}) == "t.json.normalizer: normalizer 'Nmt' is not implemented");
  CHECK(contains(error_with("/pre_tokenizer", {{"type", "Bert\n"}}), "pre-tokenizer 'Bert\\x0a' is not implemented"));
  CHECK(contains(error_with("/decoder", {{"type", "CTC"}}), "decoder 'CTC' is not implemented"));
  CHECK(contains(error_with("/post_processor", {{"type", "X"}}), "post-processor 'X' is not implemented"));
  CHECK(contains(error_with("/model/type", "Unigram"), "model 'Unigram' is not implemented; supported: BPE"));
  CHECK(contains(error_with("/model/dropout", 0.1), "option 'dropout' is not implemented"));
  CHECK(error_with("/model/dropout", 0.0) == "no error");
  CHECK(
      contains(error_with("/model/continuing_subword_prefix", "##"), "'continuing_subword_prefix' is not implemented"));
  CHECK(contains(error_with("/model/new_option", 1), "t.json.model: option 'new_option' is not implemented"));
  CHECK(contains(error_with("/normalizer",
                            json::parse(R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Q"}]})")),
                 "t.json.normalizer.normalizers[1]: normalizer 'Q'"));
}

TEST_CASE("neither the text nor a search can grow without limit") {
  const auto refused = [](const json& document) {
    try {
      make(document)->encode("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", true);
    } catch (const peft::InputError& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const json twice = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", "aa"}};
  json document = small_tokenizer();
  document["normalizer"] = {{"type", "Sequence"}, {"normalizers", json(6, twice)}};
  CHECK(refused(document).empty());
  document["normalizer"]["normalizers"] = json(60, twice);
  CHECK(refused(document) == "t.json: makes a text more than 256 times longer");
  document["normalizer"] = {
      {"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(1 << 20, 'a')}};
  CHECK(contains(refused(document), "256 times longer"));
  document["normalizer"] = nullptr;
  const json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", false}};
  document["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", json(60, bytes)}};
  CHECK(contains(refused(document), "256 times longer"));
  document["pre_tokenizer"] = nullptr;
  document["decoder"] = {{"type", "Sequence"}, {"decoders", json(60, twice)}};
  CHECK_THROWS_WITH(make(document)->decode({1}, false), Catch::Contains("256 times longer"));
  document["decoder"] = {{"type", "Fuse"}};
  document["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(a+)+b"}}}, {"behavior", "Isolated"}, {"invert", false}};
  CHECK(contains(refused(document), "t.json.pre_tokenizer.pattern: the regular expression gave up"));
  // Each search is short, but all of them together exceed the budget.
  document["pre_tokenizer"]["pattern"]["Regex"] = "(?:a|b)*[cd]|a";
  CHECK(refused(document).empty());
  CHECK_THROWS_WITH(make(document)->encode(std::string(100'000, 'a'), true),
                    Catch::Contains("t.json.pre_tokenizer.pattern: the regular expression gave up: too many steps"));
}

TEST_CASE("names from the file are escaped in every message") {
  json processor = json::parse(R"({"type": "TemplateProcessing", "special_tokens": {},
    "single": [{"SpecialToken": {"id": "x\u001b[31m", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]})");
  CHECK(contains(error_with("/post_processor", processor), "special_tokens: 'x\\x1b[31m' is missing"));
  processor["special_tokens"]["x\x1b[31m"] = {{"ids", json::array({uint64_t{1} << 63})}};
  CHECK(contains(error_with("/post_processor", processor),
                 "special_tokens.x\\x1b[31m: 'ids' must contain integers from 0"));
}

TEST_CASE("malformed files are refused with the location of the error") {
  CHECK(contains(error_of("{\"model\": "), "t.json:1:11: not JSON"));
  CHECK(contains(error_of("{\"a\": 1, \"a\": 2}"), "the key 'a' appears twice"));
  CHECK(contains(error_of(std::string(100000, '[')), "nested deeper than 64"));
  CHECK(contains(error_of("[]"), "t.json: must be an object"));
  CHECK(contains(error_of("{}"), "'model' is missing"));
  CHECK(contains(error_of("{\"a\": \"\xff\"}"), "t.json:1:8: not JSON"));
  CHECK(contains(error_with("/model/vocab/d", 7), "have the same id 7"));
  CHECK(contains(error_with("/model/vocab/d", -1), "the id of 'd' must be an integer"));
  CHECK(contains(error_with("/model/vocab/d", 1LL << 40), "the id of 'd' must be an integer"));
  CHECK(contains(error_with("/model/merges", {"a q"}), "merges[0]: 'aq' is not in the vocabulary"));
  CHECK(contains(error_with("/model/merges", {"a b c"}), "merges[0] must be two tokens"));
  CHECK(contains(error_with("/added_tokens/1/id", 20), "'<s>' has the id 20, expected 8"));
  CHECK(contains(error_with("/added_tokens/1/content", ""), "t.json.added_tokens[1]: 'content' is empty"));
  const json broken = {{"type", "Split"}, {"pattern", {{"Regex", "a(b"}}}, {"behavior", "Isolated"}, {"invert", false}};
  CHECK(
      contains(error_with("/pre_tokenizer", broken), "'a(b' does not compile: end pattern with unmatched parenthesis"));
}

TEST_CASE("text that is not UTF-8 is refused") {
  const auto tokenizer = make(small_tokenizer());
  for (const char* bad : {"ab\xff", "ab\xc0\x80", "ab\xed\xa0\x80", "ab\xf5\x80\x80\x80", "ab\xe2\x82"})
    CHECK_THROWS_WITH(tokenizer->encode(bad, true), Catch::Contains("the text is not UTF-8 at byte 2"));
}

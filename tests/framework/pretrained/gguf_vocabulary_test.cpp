// Shows that the vocabulary of a GGUF file is converted to a tokenizer.json, and that missing, unknown and inconsistent
// values are refused by name. tests/parity compares the ids of real vocabularies.
#include "peft/pretrained/gguf/vocabulary.h"

#include <nlohmann/json.hpp>

#include "peft/base/error.h"
#include "peft/text/tokenizer/tokenizer.h"
#include "support/test.h"

namespace {

using nlohmann::json;
using Ids = std::vector<int64_t>;

json sentencepiece() {
  return {{"tokenizer.ggml.model", "llama"},
          {"tokenizer.ggml.tokens", {"<unk>", "<s>", "▁", "a", "b", "ab", "▁a"}},
          {"tokenizer.ggml.scores", {0, 0, -4, -5, -6, -1, -2}},
          {"tokenizer.ggml.token_type", {2, 3, 1, 1, 1, 1, 1}},
          {"tokenizer.ggml.bos_token_id", 1}};
}

json byte_level(const char* pre) {
  return {{"tokenizer.ggml.model", "gpt2"},
          {"tokenizer.ggml.pre", pre},
          {"tokenizer.ggml.tokens", {"a", "1", "Ġ", "Ġ1", "<s>"}},
          {"tokenizer.ggml.merges", {"Ġ 1"}},
          {"tokenizer.ggml.token_type", {1, 1, 1, 1, 3}},
          {"tokenizer.ggml.bos_token_id", 4}};
}

Ids encode(const json& metadata, const std::string& text) {
  return peft::Tokenizer::from_json(peft::tokenizer_json_from_gguf(metadata, "m.gguf"), "m.gguf")->encode(text, true);
}

}  // namespace

TEST_CASE("in a SentencePiece vocabulary the highest score merges first, and a space and BOS are prepended") {
  CHECK(encode(sentencepiece(), "ab") == Ids{1, 2, 5});
  CHECK(encode(sentencepiece(), "a b") == Ids{1, 6, 2, 4});
  json metadata = sentencepiece();
  metadata["tokenizer.ggml.add_space_prefix"] = false;
  metadata["tokenizer.ggml.add_bos_token"] = false;
  CHECK(encode(metadata, "ab") == Ids{5});
}

TEST_CASE("in a byte-level vocabulary tokenizer.ggml.pre decides how the text is split") {
  CHECK(encode(byte_level("gpt-2"), "a 1<s>") == Ids{0, 3, 4});
  CHECK(encode(byte_level("smollm"), "a 1<s>") == Ids{0, 2, 1, 4});
  CHECK(encode(byte_level("llama-bpe"), "a") == Ids{4, 0});
}

TEST_CASE("missing, unknown and inconsistent values are refused by name") {
  const auto refused = [](json metadata, const char* key, const json& value, const std::string& message) {
    if (value.is_null())
      metadata.erase(key);
    else
      metadata[key] = value;
    CHECK_THROWS_WITH(peft::tokenizer_json_from_gguf(metadata, "m.gguf"), Catch::Contains(message));
  };
  refused(byte_level("tekken"), "x", 0, "tokenizer.ggml.pre 'tekken' is not implemented");
  refused(byte_level("gpt-2"), "tokenizer.ggml.pre", nullptr, "tokenizer.ggml.pre '' is not implemented");
  refused(byte_level("gpt-2"), "tokenizer.ggml.model", "t5", "tokenizer.ggml.model 't5' is not implemented");
  refused(byte_level("gpt-2"), "tokenizer.ggml.merges", nullptr,
          "m.gguf: metadata: 'tokenizer.ggml.merges' is missing");
  refused(byte_level("gpt-2"), "tokenizer.ggml.tokens", {"a", "a"}, "the token 'a' appears twice");
  refused(byte_level("gpt-2"), "tokenizer.ggml.tokens", {"a", "\xff"}, "token 1 is not UTF-8");
  refused(byte_level("gpt-2"), "tokenizer.ggml.token_type", {1},
          "'tokenizer.ggml.token_type' must have an element for each token");
  refused(byte_level("gpt-2"), "tokenizer.ggml.token_type", {1, 1, 1, 1, (int64_t{1} << 32) + 3}, "from 0 to 6");
  refused(sentencepiece(), "tokenizer.ggml.tokens", {std::string(5000, 'a')}, "token 0 has 5000 bytes");
  refused(sentencepiece(), "tokenizer.ggml.scores", {0.5},
          "'tokenizer.ggml.scores' must have an element for each token");
  refused(sentencepiece(), "tokenizer.ggml.bos_token_id", 99,
          "'tokenizer.ggml.bos_token_id' is 99, but there are 7 tokens");
}

#include "peft/pretrained/gguf/vocabulary.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "files/json_object_reader.h"
#include "peft/base/error.h"
#include "pretrained/gguf/pre_tokenizer.h"
#include "text/unicode.h"

namespace peft {

namespace {

using nlohmann::json;
using text::find_gguf_pre_tokenizer;
using text::GgufPreTokenizer;
using text::kSpaceMark;
using text::sequence;
using text::TokenType;

/// merges() tries every split of a token, which takes time quadratic in its length.
constexpr std::size_t kMaxTokenBytes = 4096;

/// Converts a vocabulary to a tokenizer.json.
class Conversion {
 public:
  Conversion(const json& metadata, const std::string& name) : in_(metadata, name + ": metadata") { read_tokens(); }

  json convert() {
    const std::string model = in_.text("tokenizer.ggml.model");
    json out = {{"version", "1.0"}, {"truncation", nullptr}, {"padding", nullptr}, {"added_tokens", added_tokens()}};
    bool adds_bos = false;
    if (model == "gpt2")
      adds_bos = convert_byte_level(out);
    else if (model == "llama")
      adds_bos = convert_sentencepiece(out);
    else
      in_.fail("tokenizer.ggml.model '" + printable(model) + "' is not implemented; supported: gpt2, llama");
    out["post_processor"] = post_processor(adds_bos);
    return out;
  }

 private:
  void read_tokens() {
    for (const json& token : in_.array("tokenizer.ggml.tokens")) {
      if (!token.is_string()) in_.fail("'tokenizer.ggml.tokens' must contain strings");
      tokens_.push_back(token.get<std::string>());
      if (tokens_.back().size() > kMaxTokenBytes)
        in_.fail("token " + std::to_string(tokens_.size() - 1) + " has " + std::to_string(tokens_.back().size()) +
                 " bytes; the limit is " + std::to_string(kMaxTokenBytes));
      if (text::find_bad_utf8(tokens_.back()) != std::string::npos)
        in_.fail("token " + std::to_string(tokens_.size() - 1) + " is not UTF-8: '" + printable(tokens_.back()) + "'");
      if (!ids_.emplace(tokens_.back(), tokens_.size() - 1).second)
        in_.fail("the token '" + printable(tokens_.back()) + "' appears twice");
    }
  }

  json added_tokens() const {
    json added = json::array();
    if (!in_.has("tokenizer.ggml.token_type")) return added;
    const json& types = in_.array("tokenizer.ggml.token_type");
    if (types.size() != tokens_.size()) in_.fail("'tokenizer.ggml.token_type' must have an element for each token");
    for (std::size_t id = 0; id < tokens_.size(); ++id) {
      const int64_t number = types[id].is_number_integer() ? types[id].get<int64_t>() : -1;
      if (number < 0 || number > 6) in_.fail("'tokenizer.ggml.token_type' must contain integers from 0 to 6");
      const auto type = static_cast<TokenType>(number);
      if (type != TokenType::unknown && type != TokenType::control && type != TokenType::user_defined) continue;
      added.push_back({{"id", id},
                       {"content", tokens_[id]},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type != TokenType::user_defined}});
    }
    return added;
  }

  json vocabulary() const {
    json vocabulary = json::object();
    for (std::size_t id = 0; id < tokens_.size(); ++id) vocabulary[tokens_[id]] = id;
    return vocabulary;
  }

  /// Returns the default of `add_bos_token` for the vocabulary.
  bool convert_byte_level(json& out) const {
    const std::string name = in_.text("tokenizer.ggml.pre", "");
    const GgufPreTokenizer* pre = find_gguf_pre_tokenizer(name);
    if (pre == nullptr)
      in_.fail(
          "tokenizer.ggml.pre '" + printable(name) +
          "' is not implemented (supported: gpt-2, smollm, qwen2, llama-bpe); use the model's Hugging Face folder");
    out["normalizer"] = pre->normalizer;
    out["pre_tokenizer"] = pre->pre_tokenizer;
    out["decoder"] = text::byte_level(true);
    out["model"] = {{"type", "BPE"},
                    {"vocab", vocabulary()},
                    {"merges", in_.array("tokenizer.ggml.merges")},
                    {"ignore_merges", pre->ignore_merges}};
    return pre->adds_bos;
  }

  bool convert_sentencepiece(json& out) const {
    const bool prefix = in_.flag("tokenizer.ggml.add_space_prefix", true);
    const json spaces = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}};
    json normalizers = json::array();
    if (prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
    normalizers.push_back(spaces);
    out["normalizer"] = sequence("normalizers", normalizers);
    out["pre_tokenizer"] = nullptr;
    json decoders = json::array({{{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}},
                                 {{"type", "ByteFallback"}},
                                 {{"type", "Fuse"}}});
    if (prefix) decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    out["decoder"] = sequence("decoders", decoders);
    out["model"] = {{"type", "BPE"},
                    {"vocab", vocabulary()},
                    {"byte_fallback", true},
                    {"fuse_unk", true},
                    {"unk_token", token_of("tokenizer.ggml.unknown_token_id", 0)},
                    {"merges", in_.has("tokenizer.ggml.merges") ? in_.array("tokenizer.ggml.merges") : merges()}};
    return true;
  }

  /// As in transformers' GGUFTokenizerSkeleton, every split of a token into two tokens is a merge, ordered by the score
  /// of the token.
  json merges() const {
    const std::vector<double> scores = read_scores();
    struct Merge {
      double score;
      std::size_t token, left, right;
    };
    std::vector<Merge> all;
    std::size_t bytes = 0;
    for (std::size_t token = 0; token < tokens_.size(); ++token) {
      const std::string& content = tokens_[token];
      const std::size_t first = all.size();
      for (std::size_t split = 0; split < content.size();) {
        split += text::char_length(content[split]);
        const auto left = ids_.find(content.substr(0, split)), right = ids_.find(content.substr(split));
        if (split < content.size() && left != ids_.end() && right != ids_.end())
          all.push_back({scores[token], token, left->second, right->second}), bytes += content.size();
      }
      // Far more than in any real vocabulary, in which a token has only a few splits.
      if (all.size() > std::size_t{1} << 22 || bytes > std::size_t{64} << 20)
        in_.fail("the tokens have too many possible merges");
      std::stable_sort(all.begin() + static_cast<std::ptrdiff_t>(first), all.end(),
                       [&](const Merge& a, const Merge& b) {
                         return std::pair(scores[a.left], scores[a.right]) > std::pair(scores[b.left], scores[b.right]);
                       });
    }
    std::stable_sort(all.begin(), all.end(), [](const Merge& a, const Merge& b) { return a.score > b.score; });
    json out = json::array();
    for (const Merge& merge : all) out.push_back(json::array({tokens_[merge.left], tokens_[merge.right]}));
    return out;
  }

  std::vector<double> read_scores() const {
    std::vector<double> scores;
    for (const json& score : in_.array("tokenizer.ggml.scores")) {
      if (!score.is_number() || !std::isfinite(score.get<double>()))
        in_.fail("'tokenizer.ggml.scores' must contain finite numbers");
      scores.push_back(score.get<double>());
    }
    if (scores.size() != tokens_.size()) in_.fail("'tokenizer.ggml.scores' must have an element for each token");
    return scores;
  }

  std::string token_of(const char* key, int64_t default_id) const {
    const int64_t id = in_.has(key) ? in_.integer(key) : default_id;
    if (id < 0 || id >= static_cast<int64_t>(tokens_.size()))
      in_.fail("'" + std::string(key) + "' is " + std::to_string(id) + ", but there are " +
               std::to_string(tokens_.size()) + " tokens");
    return tokens_[static_cast<std::size_t>(id)];
  }

  json post_processor(bool adds_bos) const {
    json single = json::array(), specials = json::object();
    const auto special = [&](const char* key) {
      const std::string token = token_of(key, -1);
      specials[token] = {{"id", token}, {"ids", json::array({ids_.at(token)})}, {"tokens", json::array({token})}};
      single.push_back({{"SpecialToken", {{"id", token}, {"type_id", 0}}}});
    };
    if (in_.flag("tokenizer.ggml.add_bos_token", adds_bos)) special("tokenizer.ggml.bos_token_id");
    single.push_back({{"Sequence", {{"id", "A"}, {"type_id", 0}}}});
    if (in_.flag("tokenizer.ggml.add_eos_token", false)) special("tokenizer.ggml.eos_token_id");
    return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", single}, {"special_tokens", specials}};
  }

  JsonObjectReader in_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, std::size_t> ids_;
};

}  // namespace

std::string tokenizer_json_from_gguf(const json& metadata, const std::string& name) {
  return Conversion(metadata, name).convert().dump();
}

}  // namespace peft

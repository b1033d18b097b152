#include "pretrained/gguf/tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "files/json_object_reader.h"
#include "peft/base/error.h"
#include "pretrained/gguf/pre_tokenizer.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/tokenizer_config.h"

namespace peft {

namespace {

using nlohmann::json;
using text::GgufPreTokenizer;
using text::TokenType;

bool is_byte(const std::string& token) { return token.size() == 6 && token.starts_with("<0x") && token.ends_with('>'); }

/// Special tokens that some tokenizers do not mark as such, by the rule of llama.cpp's converter.
bool looks_special(const std::string& token) {
  return (token.starts_with("<|") && token.ends_with("|>")) || (token.starts_with("<｜") && token.ends_with("｜>"));
}

/// Converts a tokenizer.json to metadata.
class Conversion {
 public:
  Conversion(const json& tokenizer, const json& config, const json& model, int64_t vocab_size, const std::string& name)
      : tokenizer_(tokenizer),
        config_(config),
        model_config_(model),
        name_(name),
        in_(tokenizer, name + ": tokenizer.json"),
        model_(in_.at("model")) {
    if (model_.text("type", "BPE") != "BPE") in_.fail("only BPE models can be written to GGUF files");
    byte_fallback_ = model_.flag("byte_fallback", false);
    read_tokens(vocab_size);
  }

  GgufPairs convert() {
    byte_fallback_ ? add_sentencepiece() : add_byte_level();
    std::vector<int32_t> types;
    for (const TokenType type : types_) types.push_back(static_cast<int32_t>(type));
    put("ggml.tokens", tokens_);
    put("ggml.token_type", types);
    add_specials();
    if (const std::string source = text::template_source(config_, name_); !source.empty()) put("chat_template", source);
    return std::move(pairs_);
  }

 private:
  void put(const std::string& key, GgufValue value) { pairs_.emplace_back("tokenizer." + key, std::move(value)); }

  void read_tokens(int64_t vocab_size) {
    tokens_.resize(static_cast<std::size_t>(vocab_size));
    types_.assign(tokens_.size(), TokenType::unused);
    for (std::size_t id = 0; id < tokens_.size(); ++id) tokens_[id] = "[PAD" + std::to_string(id) + "]";
    for (const auto& [token, id] : model_.object("vocab").items())
      set(id, token, byte_fallback_ && is_byte(token) ? TokenType::byte : TokenType::normal);
    if (!in_.has("added_tokens")) return;
    for (const JsonObjectReader& added : in_.each("added_tokens")) {
      std::string token = added.text("content");
      const bool special = added.flag("special", false) || looks_special(token);
      if (!special)  // as in llama.cpp's converter: such tokens are matched in the user's text
        for (std::size_t at = 0; (at = token.find(text::kSpaceMark, at)) != token.npos;) token.replace(at, 3, " ");
      const bool is_unknown = byte_fallback_ && token == model_.text("unk_token", "");
      set(added.integer("id"), token,
          is_unknown ? TokenType::unknown
          : special  ? TokenType::control
                     : TokenType::user_defined);
    }
  }

  void set(const json& id, const std::string& token, TokenType type) {
    const int64_t index = id.is_number_integer() ? id.get<int64_t>() : -1;
    if (index < 0 || index >= static_cast<int64_t>(tokens_.size()))
      in_.fail("the token '" + printable(token) + "' has the id " + id.dump() + ", but the model has " +
               std::to_string(tokens_.size()) + " rows");
    tokens_[static_cast<std::size_t>(index)] = token;
    types_[static_cast<std::size_t>(index)] = type;
    ids_[token] = index;
  }

  void add_byte_level() {
    const GgufPreTokenizer* pre = text::find_gguf_pre_tokenizer(tokenizer_);
    if (pre == nullptr)
      in_.fail(
          "there is no GGUF name for its normalizer and pre_tokenizer (supported: gpt-2, smollm, qwen2, llama-bpe); "
          "convert the merged folder with llama.cpp's convert_hf_to_gguf.py");
    put("ggml.model", std::string("gpt2"));
    put("ggml.pre", pre->name);
    std::vector<std::string> merges;
    for (const auto& [left, right] : text::merge_pairs(model_)) merges.push_back(left + " " + right);
    put("ggml.merges", merges);
  }

  /// llama.cpp merges the pair whose token has the highest score, so the score is the negative rank of the merge.
  void add_sentencepiece() {
    bool prefix = false;
    if (!only_marks_spaces(prefix))
      in_.fail("its normalizer and pre_tokenizer do not replace spaces by '▁' as SentencePiece does");
    put("ggml.model", std::string("llama"));
    put("ggml.pre", std::string("default"));
    put("ggml.add_space_prefix", prefix);
    const auto merges = text::merge_pairs(model_);
    std::vector<float> scores(tokens_.size(), -static_cast<float>(merges.size()) - 1);
    for (std::size_t rank = merges.size(); rank-- > 0;)
      if (const auto id = ids_.find(merges[rank].first + merges[rank].second); id != ids_.end())
        scores[static_cast<std::size_t>(id->second)] = -static_cast<float>(rank);
    put("ggml.scores", scores);
  }

  bool only_marks_spaces(bool& prefix) const {
    if (in_.has("pre_tokenizer")) {
      const JsonObjectReader pre = in_.at("pre_tokenizer");
      prefix = pre.text("prepend_scheme", "always") != "never";
      return pre.text("type") == "Metaspace" && !in_.has("normalizer");
    }
    const json replace = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", text::kSpaceMark}};
    const json prepend = {{"type", "Prepend"}, {"prepend", text::kSpaceMark}};
    const json normalizer = tokenizer_.value("normalizer", json());
    prefix = normalizer == text::sequence("normalizers", json::array({prepend, replace}));
    return prefix || normalizer == replace || normalizer == text::sequence("normalizers", json::array({replace}));
  }

  void add_specials() {
    for (const auto& [field, key] :
         {std::pair("bos_token", "bos"), {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}})
      if (const auto id = special_id(field)) put("ggml." + std::string(key) + "_token_id", static_cast<uint32_t>(*id));
    const json single = template_of(tokenizer_.value("post_processor", json()));
    const auto special = [](const json& piece) { return piece.is_object() && piece.contains("SpecialToken"); };
    put("ggml.add_bos_token", !single.empty() && special(single.front()));
    put("ggml.add_eos_token", !single.empty() && special(single.back()));
  }

  /// The id from tokenizer_config.json or, if it has none, from config.json.
  std::optional<int64_t> special_id(const std::string& field) const {
    if (const auto found = ids_.find(text::special_token(config_, field, name_)); found != ids_.end())
      return found->second;
    const json id = model_config_.value(field + "_id", json());
    if (!id.is_number_unsigned() || id.get<uint64_t>() >= tokens_.size()) return std::nullopt;
    return id.get<int64_t>();
  }

  /// `single` of a TemplateProcessing; empty if there is none.
  static json template_of(const json& processor) {
    if (!processor.is_object()) return json::array();
    if (processor.contains("single") && processor["single"].is_array()) return processor["single"];
    if (processor.contains("processors") && processor["processors"].is_array())
      for (const json& inner : processor["processors"])
        if (const json found = template_of(inner); !found.empty()) return found;
    return json::array();
  }

  const json& tokenizer_;
  const json& config_;
  const json& model_config_;
  std::string name_;
  JsonObjectReader in_, model_;
  bool byte_fallback_ = false;
  std::vector<std::string> tokens_;
  std::vector<TokenType> types_;
  std::unordered_map<std::string, int64_t> ids_;
  GgufPairs pairs_;
};

}  // namespace

GgufPairs gguf_pairs_of_tokenizer(const json& tokenizer, const json& config, const json& model, int64_t vocab_size,
                                  const std::string& name) {
  return Conversion(tokenizer, config, model, vocab_size, name).convert();
}

}  // namespace peft

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "text/json_fields.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/normalizer.h"

namespace peft::text {

/// A part of the input: a token found as it stands, or text that is still to be tokenized.
struct Part {
  std::optional<int64_t> id;
  std::string text;
  bool first;  ///< begins where the whole input begins
};

/// The added tokens of a tokenizer.json, found in the text before the model sees it.
class AddedTokens {
 public:
  /// The array `added_tokens`. Throws InputError where HF tokenizers would give another id than the file.
  AddedTokens(const std::vector<Fields>& tokens, const Bpe& model, const Normalizer& normalizer);

  /// Cuts the tokens out of the raw text, normalizes the rest, and cuts out those that are matched after normalization.
  std::vector<Part> extract(const std::string& text, const Normalizer& normalizer, TextBudget& budget) const;

  std::optional<int64_t> id(const std::string& token) const;
  const std::string* token(int64_t id) const;
  bool special(int64_t id) const;
  int64_t size() const { return size_; }  ///< largest id + 1

 private:
  struct Token {
    int64_t id;
    std::string content;
    bool special, single_word, lstrip, rstrip, normalized;
  };
  /// Longest match at a place, over the bytes.
  class Trie {
   public:
    void add(std::string_view text, std::size_t token);
    /// Nothing matches: npos.
    std::size_t find(std::string_view text, std::size_t at, std::size_t& length) const;

   private:
    std::array<bool, 256> starts_{};
    std::unordered_map<uint64_t, uint32_t> next_;
    std::unordered_map<uint32_t, std::size_t> tokens_;
    uint32_t nodes_ = 1;
  };

  void cut(const Part& part, const Trie& trie, std::vector<Part>& out) const;

  std::vector<Token> tokens_;
  std::unordered_map<std::string, std::size_t> by_content_;
  std::unordered_map<int64_t, std::size_t> by_id_;
  Trie raw_, normalized_;
  int64_t size_ = 0;
};

}  // namespace peft::text

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "files/json_object_reader.h"
#include "text/tokenizer/bpe.h"
#include "text/tokenizer/normalizer.h"

namespace peft::text {

/// A piece of the input: an added token, or text that is not tokenized yet.
struct TextPiece {
  std::optional<int64_t> id;
  std::string text;
  bool first;  ///< starts at the beginning of the input
};

/// The added tokens of a tokenizer.json, which are found in the text before the model tokenizes the rest.
class AddedTokens {
 public:
  /// Reads the array `added_tokens`. Throws InputError if HF tokenizers would assign an id that differs from the file.
  AddedTokens(const std::vector<JsonObjectReader>& tokens, const Bpe& model, const Normalizer& normalizer);

  /// Splits the raw text at added tokens, normalizes the text between them, and splits that at the added tokens that
  /// are matched after normalization.
  std::vector<TextPiece> extract(const std::string& text, const Normalizer& normalizer, TextBudget& budget) const;

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
  /// Finds the longest token that starts at a given byte.
  class Trie {
   public:
    void add(std::string_view text, std::size_t token);
    /// Index of the token and its length in bytes; npos if there is none.
    std::size_t find(std::string_view text, std::size_t at, std::size_t& length) const;

   private:
    std::array<bool, 256> starts_{};
    std::unordered_map<uint64_t, uint32_t> next_;
    std::unordered_map<uint32_t, std::size_t> tokens_;
    uint32_t nodes_ = 1;
  };

  void split(const TextPiece& piece, const Trie& trie, std::vector<TextPiece>& out) const;

  std::vector<Token> tokens_;
  std::unordered_map<std::string, std::size_t> by_content_;
  std::unordered_map<int64_t, std::size_t> by_id_;
  Trie raw_, normalized_;
  int64_t size_ = 0;
};

}  // namespace peft::text

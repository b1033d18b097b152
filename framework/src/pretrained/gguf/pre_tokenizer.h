#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace peft::text {

/// A pre-tokenizer that llama.cpp identifies by name, `tokenizer.ggml.pre`, as members of a tokenizer.json.
struct GgufPreTokenizer {
  std::string name;
  nlohmann::json normalizer, pre_tokenizer;
  bool ignore_merges = false;  ///< a word that is a token is not built by merges
  bool adds_bos = false;       ///< default of `tokenizer.ggml.add_bos_token`
};

/// Null if it is not implemented.
const GgufPreTokenizer* find_gguf_pre_tokenizer(const std::string& name);
/// The one with the normalizer and pre-tokenizer of this tokenizer.json; null if there is none.
const GgufPreTokenizer* find_gguf_pre_tokenizer(const nlohmann::json& tokenizer);

/// {"type": "ByteLevel", …}
nlohmann::json byte_level(bool use_regex);
/// {"type": "Sequence", kind: steps}
nlohmann::json sequence(const char* kind, nlohmann::json steps);

/// `tokenizer.ggml.token_type`
enum class TokenType : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

inline const char* const kSpaceMark = "\xE2\x96\x81";  ///< "▁", which SentencePiece writes for a space

}  // namespace peft::text

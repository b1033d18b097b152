#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace peft::text {

/// A pre-tokenizer that llama.cpp knows by name, `tokenizer.ggml.pre`, as parts of a tokenizer.json.
struct GgufPreTokenizer {
  std::string name;
  nlohmann::json normalizer, pre_tokenizer;
  bool ignore_merges = false;  ///< a whole word that is a token is taken as it is
  bool begins = false;         ///< a text begins with BOS if the file does not say
};

/// Null if it is not implemented.
const GgufPreTokenizer* find_gguf_pre_tokenizer(const std::string& name);
/// The one that cuts a text as this tokenizer.json does; null if llama.cpp has none by those parts.
const GgufPreTokenizer* find_gguf_pre_tokenizer(const nlohmann::json& tokenizer);

/// {"type": "ByteLevel", …}
nlohmann::json byte_level(bool use_regex);
/// {"type": "Sequence", kind: steps}
nlohmann::json sequence(const char* kind, nlohmann::json steps);

/// `tokenizer.ggml.token_type`
enum class TokenType : int32_t { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };

inline const char* const mark = "\xE2\x96\x81";  ///< «▁», sentencepiece's space

}  // namespace peft::text

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/files/stored_tensor.h"

namespace peft {

/// A token beyond a tokenizer's own: HF tokenizers' AddedToken, its names, its defaults.
struct AddedToken {
  std::string content;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = true;
  bool operator==(const AddedToken&) const = default;
};

/// How a checkpoint's vocabulary differs from that of its files; with_vocabulary() makes such a one.
struct AddedVocabulary {
  std::vector<AddedToken> tokens;  ///< in the order of their ids
  int64_t first_id = 0;
  int64_t stored_rows = 0, rows = 0;  ///< of embedding and head: in the files, and now
  bool own_config = false;            ///< tokenizer_config() is not the files'
  bool other_tokens() const { return !tokens.empty() || rows != stored_rows; }
};

/// A model on disk, a Hugging Face folder or one .gguf file, seen as a Hugging Face folder. Read-only and mapped.
class PEFT_API PretrainedModel {
 public:
  virtual ~PretrainedModel();

  /// The path as given to open_pretrained().
  virtual const std::string& path() const = 0;
  /// config.json, or the same made from a GGUF's metadata.
  virtual const nlohmann::json& config() const = 0;
  /// The text of tokenizer.json, or the same made from a GGUF's vocabulary. Throws InputError if there is none.
  virtual std::string tokenizer_json() const = 0;
  /// What tokenizer_json() is made of, as it lies in the file: equal bytes, equal tokenizer. Throws as it does.
  virtual std::string tokenizer_bytes() const = 0;
  /// tokenizer_config.json (an empty object if absent); with `chat_template`, `bos_token`, `eos_token`.
  virtual const nlohmann::json& tokenizer_config() const = 0;
  /// generation_config.json (an empty object if absent).
  virtual const nlohmann::json& generation_config() const = 0;

  virtual const std::vector<StoredTensor>& tensors() const = 0;
  const StoredTensor* find(const std::string& name) const;
  /// Writes all elements as fp32 (exact for f16, bf16 and every quantised type), in Hugging Face order: a GGUF's q/k
  /// permutation is undone. `out` holds the product of the shape.
  virtual void read(const StoredTensor& tensor, float* out) const = 0;
  /// XXH3-128 over names, types, shapes and bytes of all tensors, in the order of names: the same weights give the same
  /// digits, however they are spread over files.
  virtual std::string fingerprint() const;
  /// Null: the vocabulary is the files' own.
  virtual const AddedVocabulary* added() const { return nullptr; }
  /// True if data is the tensor's value as it stands (not quantised, not permuted): it may be used without a copy.
  virtual bool is_direct(const StoredTensor& tensor) const = 0;
};

}  // namespace peft

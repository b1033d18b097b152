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

/// A token added to a tokenizer, with the names and defaults of HF tokenizers' AddedToken.
struct AddedToken {
  std::string content;
  bool special = false, single_word = false, lstrip = false, rstrip = false, normalized = true;
  bool operator==(const AddedToken&) const = default;
};

/// How a model's vocabulary differs from that of its files, as with_vocabulary() changes it.
struct AddedVocabulary {
  std::vector<AddedToken> tokens;  ///< in the order of their ids
  int64_t first_id = 0;
  int64_t stored_rows = 0, rows = 0;  ///< rows of the embedding and lm_head: in the files, and after the change
  bool own_config = false;            ///< tokenizer_config() differs from that of the files
  /// True if tokens or rows differ.
  bool other_tokens() const { return !tokens.empty() || rows != stored_rows; }
};

/// A pretrained model on disk, a Hugging Face folder or a .gguf file, presented as a Hugging Face folder. Its files are
/// memory-mapped and never written.
class PEFT_API PretrainedModel {
 public:
  virtual ~PretrainedModel();

  /// The path passed to open_pretrained().
  virtual const std::string& path() const = 0;
  /// What an adapter's base_model_name_or_path names: path(), unless open_pretrained() was given another name or a GGUF
  /// file names the Hugging Face repository that it was made from.
  virtual const std::string& base_name() const { return path(); }
  /// config.json, or its equivalent made from a GGUF file's metadata. `tie_word_embeddings` is false if the files hold
  /// a head that differs from the embedding.
  virtual const nlohmann::json& config() const = 0;
  /// Whether unknown keys of config() are to be ignored, as OpenOptions says.
  virtual bool ignores_unknown() const { return false; }
  /// What a user should know about how the files were read, a line each: contradictions, ignored keys.
  virtual std::vector<std::string> notes() const { return {}; }
  /// The text of tokenizer.json, or its equivalent made from a GGUF file's vocabulary. Throws InputError if there is
  /// none.
  virtual std::string tokenizer_json() const = 0;
  /// The bytes of the file from which tokenizer_json() is made, to identify the tokenizer: equal bytes give an equal
  /// tokenizer. Throws InputError if there is none.
  virtual std::string tokenizer_bytes() const = 0;
  /// tokenizer_config.json (an empty object if absent), including `chat_template`, `bos_token` and `eos_token`.
  virtual const nlohmann::json& tokenizer_config() const = 0;
  /// generation_config.json (an empty object if absent).
  virtual const nlohmann::json& generation_config() const = 0;

  virtual const std::vector<StoredTensor>& tensors() const = 0;
  /// The tensor of that name, or null.
  const StoredTensor* find(const std::string& name) const;
  /// Reads all elements as fp32 into `out`, which has room for them: exact for f16, bf16 and all quantized types. The
  /// order is Hugging Face's: GGUF's permutation of query and key rows is undone.
  virtual void read(const StoredTensor& tensor, float* out) const = 0;
  /// XXH3-128 of names, types, shapes and bytes of all tensors, ordered by name, as 32 hexadecimal digits. Does not
  /// depend on how the tensors are distributed over files.
  virtual std::string fingerprint() const;
  /// How the vocabulary differs from that of the files; null if it does not.
  virtual const AddedVocabulary* added() const { return nullptr; }
  /// True if `tensor.data` holds the tensor's values (neither quantized nor permuted), so that it can be used without a
  /// copy.
  virtual bool is_direct(const StoredTensor& tensor) const = 0;
};

}  // namespace peft

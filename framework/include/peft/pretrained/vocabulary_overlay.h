#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

/// Changes to the vocabulary and the special tokens of a pretrained model.
struct VocabularyOverlay {
  std::vector<AddedToken> tokens = {};  ///< get the ids after those of the tokenizer
  int64_t rows = 0;  ///< of the embedding and lm_head; 0: as many as the model has or, if that is more, the tokens need
  /// Added rows by tensor name, row-major. A tensor that is not listed gets the mean of its stored rows.
  std::map<std::string, std::vector<float>> values = {};
  /// Replacements for `chat_template`, `bos_token` and `eos_token` of tokenizer_config.json.
  std::map<std::string, std::string> tokenizer_config = {};
};

/// A view of `base` with these changes, as HF's add_tokens and resize_token_embeddings make them, except that HF draws
/// the added rows from a normal distribution around the mean with 1e-9 times the covariance. Changed weights are
/// computed when they are read; the fingerprint is that of the files. Returns `base` if nothing changes. Throws
/// ConfigError if an added token is already in the vocabulary, InputError if there are too few rows for the tokens.
PEFT_API std::shared_ptr<const PretrainedModel> with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                                VocabularyOverlay overlay);

/// The tokens that a tokenizer.json adds to those of `base`, ordered by id. Empty if `base` has no BPE tokenizer.
/// Throws InputError if their ids do not directly follow those of `base`, or if a token is empty or already in its
/// vocabulary. `name` is used as the file name in messages.
PEFT_API std::vector<AddedToken> extra_tokens(const PretrainedModel& base, const std::string& tokenizer_json,
                                              const std::string& name);

/// Writes the tokenizer and the chat template into an existing folder: copies the files of a Hugging Face folder,
/// except those that an overlay changes; creates them from the metadata of a GGUF file.
PEFT_API void write_tokenizer(const PretrainedModel& model, const std::string& folder);

/// Names of all files that write_tokenizer() can write.
PEFT_API std::vector<std::string> tokenizer_files();

}  // namespace peft

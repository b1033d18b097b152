#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/files/pretrained_model.h"

namespace peft {

/// Vocabulary and special texts other than a checkpoint's own.
struct VocabularyOverlay {
  std::vector<AddedToken> tokens = {};  ///< their ids follow the tokenizer's own
  int64_t rows = 0;                     ///< of embedding and head; 0: the checkpoint's, or as many as the tokens need
  /// By tensor, its rows beyond those that the checkpoint has; of one that is not here they are the mean of these.
  std::map<std::string, std::vector<float>> values = {};
  /// Of tokenizer_config.json: what stands in the place of its `chat_template`, `bos_token`, `eos_token`.
  std::map<std::string, std::string> tokenizer_config = {};
};

/// The checkpoint with tokens added to its tokenizer, and embedding and head of another length: what HF's add_tokens
/// and resize_token_embeddings make of it, but that these draw new rows around the mean, with a variance of 1e-9 of the
/// rows' own; and with another chat template, where one is given. Weights are made where they are read; the fingerprint
/// stays that of the files. Where nothing changes, the checkpoint itself. Throws ConfigError for a token that is in the
/// vocabulary already, InputError for rows that do not hold the tokens.
PEFT_API std::shared_ptr<const PretrainedModel> with_vocabulary(std::shared_ptr<const PretrainedModel> base,
                                                                VocabularyOverlay change);

/// The tokens of another tokenizer.json whose ids follow the checkpoint's own; none where that has no tokenizer.json,
/// or not one of BPE. Throws InputError for one that leaves ids out between the two (it is of another vocabulary), or
/// has a token twice.
PEFT_API std::vector<AddedToken> extra_tokens(const PretrainedModel& base, const std::string& tokenizer_json,
                                              const std::string& name);

/// Writes tokenizer and chat template into a folder that exists: the checkpoint's files as they are, but for what was
/// changed; of a GGUF the same made of its metadata.
PEFT_API void write_tokenizer(const PretrainedModel& checkpoint, const std::string& folder);

/// The names of all files that it may write.
PEFT_API std::vector<std::string> tokenizer_files();

}  // namespace peft

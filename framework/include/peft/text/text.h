#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/text/chat_template/chat_template.h"
#include "peft/text/tokenizer/tokenizer.h"

namespace peft {

class PretrainedModel;

/// Tokenizer, chat template and EOS tokens of a pretrained model.
struct TextPipeline {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  ///< null if the model has none
  std::vector<int64_t> eos_ids;  ///< any of them ends generation; the first one is appended to training examples
};

/// Reads the text pipeline of a pretrained model. The EOS tokens are `eos_token` of tokenizer_config.json, then
/// `eos_token_id` of generation_config.json or, if that is not set, of config.json. Throws InputError.
PEFT_API TextPipeline load_text(const PretrainedModel& model);

/// The source of a chat template that the user chooses: a file whose name ends in ".jinja", or the name of one of the
/// model's templates. Throws ConfigError if there is no such template, InputError for a file that cannot be parsed.
PEFT_API std::string find_chat_template(const PretrainedModel& model, const std::string& given);

/// A text pipeline that is loaded on the first call of get(), because building a tokenizer takes time. Not thread-safe.
class PEFT_API LazyText {
 public:
  explicit LazyText(std::shared_ptr<const PretrainedModel> model) : model_(std::move(model)) {}
  const TextPipeline& get() const;
  /// XXH3-128 of everything that load_text() reads, as 32 hexadecimal digits. Does not load the pipeline.
  std::string fingerprint() const;

 private:
  std::shared_ptr<const PretrainedModel> model_;
  mutable std::optional<TextPipeline> text_;
};

}  // namespace peft

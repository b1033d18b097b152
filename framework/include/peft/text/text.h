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

/// All a checkpoint says about text.
struct TextPipeline {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  ///< null: a base model without one
  std::vector<int64_t> eos_ids;                       ///< generation stops at any of them; the first ends an example
};

/// Reads tokenizer, template and end tokens (tokenizer_config, generation_config or else config, in this order).
PEFT_API TextPipeline load_text(const PretrainedModel& checkpoint);

/// The same, read when it is first asked for: building a tokenizer takes a moment.
class PEFT_API LazyText {
 public:
  explicit LazyText(std::shared_ptr<const PretrainedModel> checkpoint) : checkpoint_(std::move(checkpoint)) {}
  const TextPipeline& get() const;
  /// XXH3-128 over all that load_text() reads.
  std::string fingerprint() const;

 private:
  std::shared_ptr<const PretrainedModel> checkpoint_;
  mutable std::optional<TextPipeline> text_;
};

}  // namespace peft

#pragma once

#include <memory>
#include <vector>

#include "peft/export.h"
#include "peft/text/chat_template.h"
#include "peft/text/tokenizer.h"

namespace peft {

class Checkpoint;

/// All a checkpoint says about text.
struct Text {
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  ///< null: a base model without one
  std::vector<int64_t> eos_ids;                       ///< generation stops at any of them; the first ends an example
};

/// Reads tokenizer, template and end tokens (generation_config, config, tokenizer_config, in this order).
PEFT_API Text load_text(const Checkpoint& checkpoint);

}  // namespace peft

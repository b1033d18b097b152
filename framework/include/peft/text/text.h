#pragma once

#include <memory>
#include <optional>
#include <string>
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

/// Reads tokenizer, template and end tokens (tokenizer_config, generation_config or else config, in this order).
PEFT_API Text load_text(const Checkpoint& checkpoint);

/// The same, read when it is first asked for: building a tokenizer takes a moment.
class PEFT_API LazyText {
 public:
  explicit LazyText(std::shared_ptr<const Checkpoint> checkpoint) : checkpoint_(std::move(checkpoint)) {}
  const Text& get() const;
  /// XXH3-128 over all that load_text() reads.
  std::string fingerprint() const;

 private:
  std::shared_ptr<const Checkpoint> checkpoint_;
  mutable std::optional<Text> text_;
};

}  // namespace peft

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "peft/base/export.h"

namespace peft {

struct Message {
  std::string role, content;  ///< "system", "user", "assistant", "tool"
};

/// A checkpoint's own Jinja chat template.
class PEFT_API ChatTemplate {
 public:
  /// Throws InputError, with the place, for a template that does not parse (or nests deeper than 100).
  static std::shared_ptr<const ChatTemplate> parse(const std::string& source, const std::string& bos_token,
                                                   const std::string& eos_token);
  virtual ~ChatTemplate();
  /// What transformers' apply_chat_template(tokenize=False) gives, on 26 July 2024. Throws InputError with line
  /// and message of a template that raises, or that takes more than 200,000 steps or 256 MiB; ResourceError without
  /// memory. Threads take turns.
  virtual std::string render(const std::vector<Message>& messages, bool add_generation_prompt) const = 0;
};

}  // namespace peft

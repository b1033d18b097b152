#pragma once

#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "peft/base/export.h"

namespace peft {

struct Message {
  std::string role, content;  ///< "system", "user", "assistant", "tool"
  /// All keys that the template sees, role and content among them; null: role and content only.
  std::shared_ptr<const nlohmann::ordered_json> keys = nullptr;
};

/// A model's Jinja chat template.
class PEFT_API ChatTemplate {
 public:
  /// `special_tokens` are variables of the template, such as `bos_token`; what is not set stays undefined. Throws
  /// InputError with the location for a template that does not parse or nests deeper than 100.
  static std::shared_ptr<const ChatTemplate> parse(const std::string& source,
                                                   const std::map<std::string, std::string>& special_tokens);
  virtual ~ChatTemplate();
  /// Returns what transformers' apply_chat_template(tokenize=False) returns on 26 July 2024. `tools`: a list of JSON
  /// schemas, or null. Throws InputError with the line and the message if the template raises an exception, uses what
  /// is not supported, or exceeds its limits (200,000 steps, 256 MiB, a depth of 1,000, 16 GiB of work), or if a
  /// message has a number beyond 64 bits, and std::bad_alloc if no memory is left. Thread-safe; calls on one template
  /// run one after another.
  virtual std::string render(const std::vector<Message>& messages, bool add_generation_prompt,
                             const nlohmann::ordered_json* tools = nullptr) const = 0;
};

}  // namespace peft

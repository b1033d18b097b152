#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "peft/data/dataset.h"
#include "peft/text/chat_template/chat_template.h"

namespace peft::data {

struct ChatTurn {
  Message message;
  bool is_target;
};

/// A record, whatever its format: turns for the chat template, or else a plain prompt (maybe empty) and completion.
struct Record {
  std::vector<ChatTurn> turns;
  std::string prompt, completion;
  std::string source;  ///< "file:line"
};

/// "text", "prompt_completion", "alpaca", "messages" or "sharegpt". Throws InputError that names the keys found.
std::string detect_format(const nlohmann::json& record, const std::string& where);

/// Reads one record of a known format. Throws InputError naming place and key.
Record read_record(const nlohmann::json& record, const std::string& format, const DataOptions& options,
                   bool has_chat_template, const std::string& where);

}  // namespace peft::data

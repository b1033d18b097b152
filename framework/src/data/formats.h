#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "peft/data/dataset.h"
#include "peft/text/chat_template/chat_template.h"

namespace peft::data {

/// The names of all formats, in the order in which "auto" looks for them.
StringList format_names();

struct ChatTurn {
  Message message;
  bool is_target;
};

/// A record of any format: turns for the chat template, or a plain prompt (possibly empty) and completion.
struct Record {
  std::vector<ChatTurn> turns;
  std::string prompt, completion;
  std::string source;  ///< "file:line"
};

/// The first of the formats `among` (empty: all) whose keys the record has. Throws InputError that names the keys
/// found.
std::string detect_format(const nlohmann::json& record, const StringList& among, const std::string& where);

/// Reads one record of a known format. Throws InputError with place and key.
Record read_record(const nlohmann::json& record, const std::string& format, const DataOptions& options,
                   bool has_chat_template, const std::string& where);

}  // namespace peft::data

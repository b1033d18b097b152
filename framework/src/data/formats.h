#pragma once

#include <memory>
#include <string>
#include <vector>

#include "data/values.h"
#include "peft/data/dataset.h"
#include "peft/text/chat_template/chat_template.h"

namespace peft::data {

/// The names of all formats, in the order in which "auto" looks for them.
StringList format_names();

struct ChatTurn {
  Message message;
  bool is_target;
  std::string path = "";  ///< what precedes the keys of the message in errors: "messages[1]."
};

/// A record of any format: turns for the chat template, or a plain prompt (possibly empty) and completion.
struct Record {
  std::vector<ChatTurn> turns;
  std::shared_ptr<const Json> tools;  ///< a list of JSON schemas, or null
  bool needs_tools = false;           ///< a chat template that does not render them is an error
  std::string prompt, completion;
  std::string source;  ///< "file:line"
};

/// How many target answers of a record have no text and call no tool, so that the model learns to end at once.
int64_t num_empty_answers(const Record& record);

/// Whether a message calls tools: `tool_calls`, or the older `function_call`.
bool has_calls(const Message& message);

/// The first of the formats `among` (empty: all) whose keys the record has. Throws InputError that names the keys
/// found.
std::string detect_format(const Json& record, const StringList& among, const std::string& where);

/// Throws InputError that names the key for an object that holds a list of records.
void refuse_list_of_records(const Json& object, const std::string& where);

/// Reads one record of a known format. Throws InputError with place and key.
Record read_record(const Json& record, const std::string& format, const DataOptions& options, bool has_chat_template,
                   const std::string& where);

}  // namespace peft::data

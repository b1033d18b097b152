#include "data/thinking.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "text/chat_template/thinking.h"

namespace peft::data {

namespace {

/// The keys that templates read thinking from: of Qwen 3 and DeepSeek, of gpt-oss, and of OpenRouter's data.
constexpr const char* kThinkingKeys[] = {"reasoning_content", "thinking", "reasoning"};

std::string thinking_key(const Message& message) {
  if (!message.keys) return "";
  for (const char* key : kThinkingKeys)
    if (const auto value = message.keys->find(key); value != message.keys->end() && value->is_string())
      return text::trimmed(value->get<std::string>());
  return "";
}

}  // namespace

std::vector<std::string> thinking_of(const Record& record) {
  std::vector<std::string> all;
  for (const ChatTurn& turn : record.turns) {
    if (!turn.is_target) continue;
    for (std::string thinking : {text::thinking_of(turn.message.content), thinking_key(turn.message)})
      if (!thinking.empty()) all.push_back(std::move(thinking));
  }
  return all;
}

int64_t num_cut(const std::vector<std::string>& thinking, const std::vector<RenderedExample>& rendered) {
  const auto is_learned = [&](const std::string& text) {
    for (const RenderedExample& example : rendered)
      for (const Segment& segment : example.segments)
        if (segment.is_target && segment.text.find(text) != std::string::npos) return true;
    return false;
  };
  return std::count_if(thinking.begin(), thinking.end(), [&](const std::string& text) { return !is_learned(text); });
}

}  // namespace peft::data

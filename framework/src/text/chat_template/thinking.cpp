#include "text/chat_template/thinking.h"

#include <string_view>

namespace peft::text {

std::string trimmed(std::string_view text) {
  constexpr std::string_view spaces = " \t\r\n";
  const std::size_t first = text.find_first_not_of(spaces);
  if (first == text.npos) return "";
  return std::string(text.substr(first, text.find_last_not_of(spaces) + 1 - first));
}

std::string thinking_of(const std::string& content) {
  struct Tags {
    std::string_view open, close;
  };
  for (const auto& [open, close] : {Tags{"<think>", "</think>"}, Tags{"[THINK]", "[/THINK]"}}) {
    const std::size_t end = content.rfind(close);
    if (end == content.npos) continue;
    std::string_view thinking = std::string_view(content).substr(0, end);
    if (const std::size_t begin = thinking.find(open); begin != thinking.npos)
      thinking.remove_prefix(begin + open.size());
    return trimmed(thinking);
  }
  return "";
}

}  // namespace peft::text

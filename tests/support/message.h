#pragma once

#include <string>

namespace peft::test {

/// What the Error that `work` ends in says, or "" where it ends well.
template <class Error, class Work>
std::string message_of(Work work) {
  try {
    work();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

inline bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace peft::test

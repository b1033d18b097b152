#pragma once

#include <string>

namespace peft::test {

/// The message of the Error that `work` throws; "" if it does not throw.
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

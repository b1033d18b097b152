#pragma once

#include <cstddef>
#include <string>

namespace peft::detail {

/// Builds a message of at most 50 lines, followed by the number of lines that were left out.
class FirstLines {
 public:
  /// True if further lines are only counted.
  bool full() const { return count_ >= kMaxLines; }
  bool empty() const { return count_ == 0; }
  void add(const std::string& line) {
    if (!full()) text_.append(empty() ? "" : "\n").append(line);
    ++count_;
  }
  /// Counts further lines whose text is not known; only when full().
  void count(std::size_t count) { count_ += count; }
  std::string text() const {
    return count_ > kMaxLines ? text_ + "\n… and " + std::to_string(count_ - kMaxLines) + " more" : text_;
  }

 private:
  static constexpr std::size_t kMaxLines = 50;
  std::string text_;
  std::size_t count_ = 0;
};

}  // namespace peft::detail

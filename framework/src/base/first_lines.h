#pragma once
// Messages of many lines.

#include <cstddef>
#include <string>

namespace peft::detail {

/// As many lines as anyone reads; of the others it is told how many there are.
class FirstLines {
 public:
  /// What is added now is only counted.
  bool full() const { return count_ >= kTold; }
  bool empty() const { return count_ == 0; }
  void add(const std::string& line) {
    if (!full()) text_.append(empty() ? "" : "\n").append(line);
    ++count_;
  }
  /// There were `count` others, once it is full.
  void count(std::size_t count) { count_ += count; }
  std::string text() const {
    return count_ > kTold ? text_ + "\n… and " + std::to_string(count_ - kTold) + " more" : text_;
  }

 private:
  static constexpr std::size_t kTold = 50;
  std::string text_;
  std::size_t count_ = 0;
};

}  // namespace peft::detail

#pragma once

#include <cstddef>
#include <string>

#include "peft/base/error.h"

namespace peft::text {

/// Limits the bytes that all steps of a tokenizer together produce from one text: a short tokenizer.json could double
/// the text many times.
class TextBudget {
 public:
  TextBudget(std::size_t text_bytes, const std::string& location)
      : remaining_(text_bytes * 256 + (1 << 20)), location_(location) {}
  /// Throws InputError, with the location, if the budget is exhausted.
  void spend(std::size_t bytes) {
    if (bytes > remaining_) throw InputError(location_ + ": makes a text more than 256 times longer");
    remaining_ -= bytes;
  }

 private:
  std::size_t remaining_;
  const std::string& location_;
};

}  // namespace peft::text

#pragma once

#include <cstddef>
#include <string>

#include "peft/base/error.h"

namespace peft::text {

/// The bytes that all steps of a tokenizer together may make of one text: a tokenizer.json of a few lines could double
/// the text over and over.
class TextBudget {
 public:
  TextBudget(std::size_t text_bytes, const std::string& where) : left_(text_bytes * 256 + (1 << 20)), where_(where) {}
  /// Throws InputError, with the place, when they are used up.
  void spend(std::size_t bytes) {
    if (bytes > left_) throw InputError(where_ + ": makes a text more than 256 times longer");
    left_ -= bytes;
  }

 private:
  std::size_t left_;
  const std::string& where_;
};

}  // namespace peft::text

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"

namespace peft {

/// A byte-pair-encoding tokenizer read from a tokenizer.json. Gives the same ids as HF tokenizers. Immutable and
/// thread-safe.
class PEFT_API Tokenizer {
 public:
  /// `name` is used as the file name in messages. Throws InputError for an invalid file and for options that are not
  /// implemented.
  static std::shared_ptr<const Tokenizer> from_json(const std::string& json, const std::string& name);
  virtual ~Tokenizer();

  /// Converts text to ids. Added tokens that appear in the text become their ids. `add_special_tokens` runs the
  /// post-processor, which adds tokens such as BOS. Throws InputError if the text is not UTF-8.
  virtual std::vector<int64_t> encode(const std::string& text, bool add_special_tokens) const = 0;
  /// Converts ids to text. Ignores ids that do not exist.
  virtual std::string decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const = 0;
  /// Largest id + 1, including added tokens.
  virtual int64_t size() const = 0;
  virtual std::optional<int64_t> id(const std::string& token) const = 0;
  /// The token as written in the vocabulary; "" if the id does not exist.
  virtual std::string token(int64_t id) const = 0;
};

}  // namespace peft

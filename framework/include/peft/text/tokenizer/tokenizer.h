#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"

namespace peft {

/// A tokenizer.json, with the ids of HF tokenizers. Immutable, safe to share between threads.
class PEFT_API Tokenizer {
 public:
  /// `name` stands in messages for the file. Throws InputError for anything malformed, and names what is not
  /// implemented.
  static std::shared_ptr<const Tokenizer> from_json(const std::string& json, const std::string& name);
  virtual ~Tokenizer();

  /// Special tokens written in the text become their ids; `add_special_tokens` runs the post-processor (BOS …).
  virtual std::vector<int64_t> encode(const std::string& text, bool add_special_tokens) const = 0;
  virtual std::string decode(const std::vector<int64_t>& ids, bool skip_special_tokens) const = 0;
  /// Largest id + 1, added tokens included.
  virtual int64_t size() const = 0;
  virtual std::optional<int64_t> id(const std::string& token) const = 0;
  /// The token as written in the vocabulary; "" for an id that is not there.
  virtual std::string token(int64_t id) const = 0;
};

}  // namespace peft

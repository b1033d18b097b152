#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/formats.h"
#include "peft/text/text.h"

namespace peft::data {

struct Segment {
  std::string text;
  bool is_target;
};

/// The text of one example, in segments that are targets or not.
struct RenderedExample {
  std::vector<Segment> segments;
  bool add_special_tokens;  ///< prepend the tokenizer's BOS token (a chat template writes its own)
};

/// Usually one. None if the record has no answer. One per answer if the template renders earlier turns differently from
/// the last one (Qwen3 drops their thinking), because then no single text has all of them as the model generates them.
std::vector<RenderedExample> render_record(const Record& record, const ChatTemplate* chat_template);

/// Tokenizes. An EOS token after a target is a target as well; nothing is truncated.
class Encoder {
 public:
  explicit Encoder(const TextPipeline& text);
  Example encode(const RenderedExample& rendered) const;

 private:
  struct Encoded {
    std::vector<int64_t> ids;
    std::vector<std::size_t> ends;  ///< of each segment, in tokens
  };
  Encoded encode_segments(const std::vector<Segment>& segments) const;
  Encoded encode_apart(const std::vector<Segment>& segments) const;
  std::vector<int64_t> continuation(const std::string& text) const;
  bool is_end(int64_t id) const;

  const TextPipeline& text_;
  std::vector<int64_t> bos_ids_;  ///< prepended by add_special_tokens
};

}  // namespace peft::data

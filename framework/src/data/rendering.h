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

/// What becomes one example: text whose parts are, in turn, said to the model and by it.
struct RenderedExample {
  std::vector<Segment> segments;
  bool add_special_tokens;  ///< the tokenizer's own BOS goes in front (a chat template writes its own)
};

/// Usually one passage. None if the model says nothing in it; one for each answer if the template writes earlier turns
/// otherwise than the last (Qwen3 drops their thinking), since then no single text holds all as the model meets them.
std::vector<RenderedExample> render_record(const Record& record, const ChatTemplate* chat_template);

/// Tokenises. The end token closes a supervised end and is supervised with it; nothing is cut.
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
  std::vector<int64_t> bos_ids_;  ///< what add_special_tokens puts before a text
};

}  // namespace peft::data

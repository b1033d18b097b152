#pragma once

#include <map>
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
  bool is_from_template;  ///< which writes its own BOS token, and may write white space after the EOS token
};

/// Renders the records of a data set.
class Renderer {
 public:
  /// `chat_template`: null if the model has none; it must outlive the object.
  explicit Renderer(const ChatTemplate* chat_template) : chat_template_(chat_template) {}

  /// Usually one. None if the record has no answer. One per answer if the template renders earlier turns differently
  /// from the last one (Qwen3 drops their thinking), because then no single text has all of them as the model generates
  /// them. Throws InputError for a call or tools that the template does not render.
  std::vector<RenderedExample> render(Record record);

 private:
  struct Answer {
    std::string text;  ///< text[0, begin) is what the model reads, text[begin, …) what it generates
    std::size_t begin = 0;
  };
  std::string text(const Record& record, std::size_t turns, bool add_generation_prompt) const;
  std::vector<RenderedExample> render_chat(Record& record);
  Answer render_answer(const Record& record, std::size_t turn);
  Answer render_opening(const Record& record);
  const std::string& generation_prompt();
  bool reads_parts(const std::string& role);
  void join_unread_parts(Record& record);
  void check_calls(const Record& record, std::size_t turns) const;
  void check_tools(Record& record, std::size_t turns) const;

  const ChatTemplate* chat_template_;
  std::optional<std::string> generation_prompt_;
  std::map<std::string, bool> reads_parts_;  ///< of each role
};

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
  std::size_t target_end(const std::vector<int64_t>& ids, std::size_t begin, std::size_t end) const;

  const TextPipeline& text_;
  std::vector<int64_t> bos_ids_;  ///< prepended where no template did it
};

}  // namespace peft::data

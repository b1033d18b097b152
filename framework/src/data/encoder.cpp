#include <algorithm>

#include "data/rendering.h"
#include "peft/base/error.h"

namespace peft::data {
namespace {

using Ids = std::vector<int64_t>;

bool starts_with(const Ids& ids, const Ids& prefix) {
  return prefix.size() <= ids.size() && std::equal(prefix.begin(), prefix.end(), ids.begin());
}

}  // namespace

Encoder::Encoder(const TextPipeline& text) : text_(text) {
  if (text.eos_ids.empty())
    throw InputError("the model has no EOS token (eos_token_id), so it could not learn to end an answer");
  const Ids plain = text.tokenizer->encode("a", false), full = text.tokenizer->encode("a", true);
  const auto at = std::search(full.begin(), full.end(), plain.begin(), plain.end());
  if (at == full.end()) throw InputError("the tokenizer's special tokens do not surround a text");
  bos_ids_.assign(full.begin(), at);
}

bool Encoder::is_end(int64_t id) const {
  return std::find(text_.eos_ids.begin(), text_.eos_ids.end(), id) != text_.eos_ids.end();
}

/// The tokens of a text that is not at the start, where many tokenizers add a space.
Ids Encoder::continuation(const std::string& text) const {
  const Ids line = text_.tokenizer->encode("\n", false);
  Ids ids = text_.tokenizer->encode("\n" + text, false);
  if (!starts_with(ids, line)) return text_.tokenizer->encode(text, false);
  ids.erase(ids.begin(), ids.begin() + static_cast<std::ptrdiff_t>(line.size()));
  return ids;
}

Encoder::Encoded Encoder::encode_apart(const std::vector<Segment>& segments) const {
  Encoded out;
  for (const Segment& segment : segments) {
    const Ids ids = out.ends.empty() ? text_.tokenizer->encode(segment.text, false) : continuation(segment.text);
    out.ids.insert(out.ids.end(), ids.begin(), ids.end());
    out.ends.push_back(out.ids.size());
  }
  return out;
}

/// The ids of the joined text, with the segments' boundaries; if a token would span a boundary, the ids of the separate
/// segments, so that the model sees the prompt as in generation.
Encoder::Encoded Encoder::encode_segments(const std::vector<Segment>& segments) const {
  Encoded parts;
  std::string text;
  for (const Segment& segment : segments) {
    const Ids ids = text_.tokenizer->encode(segment.text, false);
    parts.ids.insert(parts.ids.end(), ids.begin(), ids.end());
    parts.ends.push_back(parts.ids.size());
    text += segment.text;
  }
  if (segments.size() == 1) return parts;
  Encoded joined{text_.tokenizer->encode(text, false), {}};
  if (joined.ids == parts.ids) return parts;
  text.clear();
  for (const Segment& segment : segments) {
    text += segment.text;
    const Ids prefix = text_.tokenizer->encode(text, false);
    if (!starts_with(joined.ids, prefix)) return encode_apart(segments);
    joined.ends.push_back(prefix.size());
  }
  return joined;
}

/// Where the target tokens of ids[begin, end) end. What a template writes after the EOS token is not a target if it is
/// white space; anything else follows an EOS token that an answer mentions.
std::size_t Encoder::target_end(const Ids& ids, std::size_t begin, std::size_t end) const {
  std::size_t last = end;
  while (last > begin && !is_end(ids[last - 1])) --last;
  if (last == begin) return end;
  const std::string tail = text_.tokenizer->decode(Ids(ids.begin() + last, ids.begin() + end), false);
  return tail.find_first_not_of(" \t\r\n") == std::string::npos ? last : end;
}

Example Encoder::encode(const RenderedExample& rendered) const {
  Encoded encoded = encode_segments(rendered.segments);
  Example example{.ids = std::move(encoded.ids), .labels = {}};
  example.labels.assign(example.ids.size(), ignored_label);
  std::size_t begin = 0;
  bool ended = false;
  for (std::size_t s = 0; s < encoded.ends.size(); ++s) {
    std::size_t end = encoded.ends[s];
    if (rendered.segments[s].is_target) {
      if (rendered.is_from_template) end = target_end(example.ids, begin, end);
      std::copy(example.ids.begin() + begin, example.ids.begin() + end, example.labels.begin() + begin);
      ended = end > begin && is_end(example.ids[end - 1]);
    }
    begin = encoded.ends[s];
  }
  if (!ended && rendered.segments.back().is_target) {
    example.ids.push_back(text_.eos_ids[0]);
    example.labels.push_back(text_.eos_ids[0]);
  }
  if (!rendered.is_from_template && !starts_with(example.ids, bos_ids_)) {
    const bool first = rendered.segments.front().is_target;  // a prompt's BOS is prompt
    example.ids.insert(example.ids.begin(), bos_ids_.begin(), bos_ids_.end());
    example.labels.insert(example.labels.begin(), bos_ids_.begin(), bos_ids_.end());
    if (!first) std::fill_n(example.labels.begin(), bos_ids_.size(), ignored_label);
  }
  return example;
}

}  // namespace peft::data

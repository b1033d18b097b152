#include "text/tokenizer/decoder.h"

#include "peft/base/error.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/pattern.h"
#include "text/tokenizer/pre_tokenizer.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

using Strings = std::vector<std::string>;

/// A decoder that changes each token independently.
template <typename F>
Decoder each(F change) {
  return [change](Strings tokens, TextBudget& budget) {
    for (std::string& token : tokens) token = change(token, budget);
    return tokens;
  };
}

Strings decode_bytes(const Strings& tokens, TextBudget&) {
  std::string bytes;
  for (const std::string& token : tokens) bytes += alphabet_to_bytes(token).value_or(token);
  return {replace_bad_utf8(bytes)};
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

/// The byte of a token such as "<0xE2>"; -1 for other tokens.
int byte_of(const std::string& token) {
  if (token.size() != 6 || token.rfind("<0x", 0) != 0 || token[5] != '>') return -1;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

Strings decode_byte_fallback(const Strings& tokens, TextBudget&) {
  Strings out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (find_bad_utf8(bytes) == std::string::npos)
      out.push_back(bytes);
    else
      out.insert(out.end(), bytes.size(), "\xEF\xBF\xBD");
    bytes.clear();
  };
  for (const std::string& token : tokens) {
    const int byte = byte_of(token);
    if (byte >= 0) {
      bytes += static_cast<char>(byte);
    } else {
      flush();
      out.push_back(token);
    }
  }
  flush();
  return out;
}

Strings fuse(const Strings& tokens, TextBudget&) {
  std::string all;
  for (const std::string& token : tokens) all += token;
  return {all};
}

std::string strip(const std::string& token, const std::string& content, int64_t start, int64_t stop) {
  std::string_view rest = token;
  for (; start > 0 && rest.starts_with(content); --start) rest.remove_prefix(content.size());
  for (; stop > 0 && rest.ends_with(content); --stop) rest.remove_suffix(content.size());
  return std::string(rest);
}

Decoder read_strip(const JsonObjectReader& in) {
  in.allow_only({"type", "content", "start", "stop"});
  const std::string content = in.text("content");
  if (content.empty() || char_length(content[0]) != content.size()) in.fail("'content' must be one character");
  return each([content, start = in.integer("start"), stop = in.integer("stop")](const std::string& token, TextBudget&) {
    return strip(token, content, start, stop);
  });
}

Decoder read_replace(const JsonObjectReader& in) {
  in.allow_only({"type", "pattern", "content"});
  return each([pattern = read_pattern(in), content = in.text("content")](const std::string& token, TextBudget& budget) {
    return replace(token, *pattern, content, budget);
  });
}

Decoder make_metaspace(const Metaspace& options) {
  return [mark = literal(options.replacement), drop = options.scheme != PrependScheme::never](Strings tokens,
                                                                                              TextBudget& budget) {
    for (std::size_t i = 0; i < tokens.size(); ++i)
      tokens[i] = replace(tokens[i], *mark, drop && i == 0 ? "" : " ", budget);
    return tokens;
  };
}

Decoder read_sequence(const JsonObjectReader& in) {
  in.allow_only({"type", "decoders"});
  std::vector<Decoder> steps;
  for (const JsonObjectReader& step : in.each("decoders")) steps.push_back(read_decoder(step));
  return [steps](Strings tokens, TextBudget& budget) {
    for (const Decoder& step : steps) tokens = step(std::move(tokens), budget);
    return tokens;
  };
}

}  // namespace

Decoder read_decoder(const JsonObjectReader& in) {
  const std::string type = in.text("type");
  if (type == "Sequence") return read_sequence(in);
  if (type == "Replace") return read_replace(in);
  if (type == "Strip") return read_strip(in);
  if (type == "Metaspace") return make_metaspace(read_metaspace(in));
  if (type == "ByteLevel") {
    in.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
    return decode_bytes;
  }
  if (type == "ByteFallback" || type == "Fuse") {
    in.allow_only({"type"});
    return type == "Fuse" ? fuse : decode_byte_fallback;
  }
  in.fail("decoder '" + printable(type) + "' is not implemented");
}

}  // namespace peft::text

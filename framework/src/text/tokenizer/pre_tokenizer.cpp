#include "text/tokenizer/pre_tokenizer.h"

#include "peft/base/error.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/pattern.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

using PatternPtr = std::shared_ptr<const Pattern>;

void split_into(std::vector<Piece>& out, const Piece& piece, const Pattern& pattern, Behavior behavior, bool invert) {
  for (const Span& span : split(piece.text, pattern, behavior, invert))
    out.push_back({piece.text.substr(span.begin, span.end - span.begin), piece.first && span.begin == 0});
}

PreTokenizer splitter(PatternPtr pattern, Behavior behavior, bool invert) {
  return [=](std::vector<Piece> pieces, TextBudget&) {
    std::vector<Piece> out;
    for (const Piece& piece : pieces) split_into(out, piece, *pattern, behavior, invert);
    return out;
  };
}

PreTokenizer read_byte_level(const JsonObjectReader& in) {
  in.allow_only({"type", "add_prefix_space", "trim_offsets", "use_regex"});
  const PatternPtr pattern = in.flag("use_regex", true) ? regex(kGpt2Pattern, in.location()) : nullptr;
  return [pattern, prefix = in.flag("add_prefix_space", true)](std::vector<Piece> pieces, TextBudget&) {
    std::vector<Piece> out;
    for (Piece& piece : pieces) {
      if (prefix && !piece.text.empty() && piece.text[0] != ' ') piece.text.insert(0, 1, ' ');
      if (pattern)
        split_into(out, piece, *pattern, Behavior::isolated, false);
      else
        out.push_back(std::move(piece));
    }
    for (Piece& piece : out) piece.text = bytes_to_alphabet(piece.text);
    return out;
  };
}

PreTokenizer make_metaspace(const Metaspace& options) {
  return [options, space = literal(" "), mark = literal(options.replacement)](std::vector<Piece> pieces,
                                                                              TextBudget& budget) {
    std::vector<Piece> out;
    for (Piece& piece : pieces) {
      piece.text = replace(piece.text, *space, options.replacement, budget);
      const bool prepends =
          options.scheme == PrependScheme::always || (options.scheme == PrependScheme::first && piece.first);
      if (prepends && piece.text.rfind(options.replacement, 0) != 0) piece.text.insert(0, options.replacement);
      if (options.split)
        split_into(out, piece, *mark, Behavior::merged_with_next, false);
      else
        out.push_back(std::move(piece));
    }
    return out;
  };
}

PreTokenizer read_split(const JsonObjectReader& in) {
  in.allow_only({"type", "pattern", "behavior", "invert"});
  return splitter(read_pattern(in), read_behavior(in, ""), in.flag("invert", false));
}

PreTokenizer read_digits(const JsonObjectReader& in) {
  in.allow_only({"type", "individual_digits"});
  const bool single = in.flag("individual_digits", false);
  return splitter(characters(is_numeric), single ? Behavior::isolated : Behavior::contiguous, false);
}

PreTokenizer read_sequence(const JsonObjectReader& in) {
  in.allow_only({"type", "pretokenizers"});
  std::vector<PreTokenizer> steps;
  for (const JsonObjectReader& step : in.each("pretokenizers")) steps.push_back(read_pre_tokenizer(step));
  return [steps](std::vector<Piece> pieces, TextBudget& budget) {
    for (const PreTokenizer& step : steps) {
      pieces = step(std::move(pieces), budget);
      for (const Piece& piece : pieces) budget.spend(piece.text.size());
    }
    return pieces;
  };
}

}  // namespace

Metaspace read_metaspace(const JsonObjectReader& in) {
  in.allow_only({"type", "replacement", "str_rep", "add_prefix_space", "prepend_scheme", "split"});
  Metaspace options{in.text("replacement", "\xE2\x96\x81"), PrependScheme::always, in.flag("split", true)};
  if (options.replacement.empty() || char_length(options.replacement[0]) != options.replacement.size())
    in.fail("'replacement' must be one character");
  const std::string scheme = in.text("prepend_scheme", in.flag("add_prefix_space", true) ? "always" : "never");
  if (scheme == "first")
    options.scheme = PrependScheme::first;
  else if (scheme == "never")
    options.scheme = PrependScheme::never;
  else if (scheme != "always")
    in.fail("prepend_scheme '" + printable(scheme) + "' is not implemented");
  if (in.has("add_prefix_space") && !in.flag("add_prefix_space", true) && options.scheme != PrependScheme::never)
    in.fail("'add_prefix_space' is false, but 'prepend_scheme' is '" + scheme + "'");
  return options;
}

PreTokenizer read_pre_tokenizer(const JsonObjectReader& in) {
  const std::string type = in.text("type");
  if (type == "Sequence") return read_sequence(in);
  if (type == "ByteLevel") return read_byte_level(in);
  if (type == "Split") return read_split(in);
  if (type == "Digits") return read_digits(in);
  if (type == "Metaspace") return make_metaspace(read_metaspace(in));
  if (type == "Punctuation") {
    in.allow_only({"type", "behavior"});
    return splitter(characters(is_punctuation), read_behavior(in, "Isolated"), false);
  }
  if (type == "Whitespace") {
    in.allow_only({"type"});
    return splitter(regex("\\w+|[^\\w\\s]+", in.location()), Behavior::removed, true);
  }
  if (type == "WhitespaceSplit") {
    in.allow_only({"type"});
    return splitter(characters(is_space), Behavior::removed, false);
  }
  in.fail("pre-tokenizer '" + printable(type) + "' is not implemented");
}

}  // namespace peft::text

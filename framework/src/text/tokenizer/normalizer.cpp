#include "text/tokenizer/normalizer.h"

#include <utility>

#include "peft/base/error.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/pattern.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

Normalizer read_normal_form(const JsonObjectReader& in, NormalForm form) {
  in.allow_only({"type"});
  return [form](std::string text, TextBudget&) { return normalize(std::move(text), form); };
}

Normalizer read_prepend(const JsonObjectReader& in) {
  in.allow_only({"type", "prepend"});
  return [prefix = in.text("prepend")](std::string text, TextBudget&) { return text.empty() ? text : prefix + text; };
}

Normalizer read_replace(const JsonObjectReader& in) {
  in.allow_only({"type", "pattern", "content"});
  return [pattern = read_pattern(in), content = in.text("content")](std::string text, TextBudget& budget) {
    return replace(text, *pattern, content, budget);
  };
}

std::string strip(const std::string& text, bool left, bool right) {
  std::size_t begin = text.size(), end = 0;
  for (std::size_t at = 0; at < text.size(); at += char_length(text[at])) {
    if (is_space(char_at(text, at))) continue;
    begin = std::min(begin, at);
    end = at + char_length(text[at]);
  }
  if (!left) begin = 0;
  if (!right) end = text.size();
  return begin < end ? text.substr(begin, end - begin) : "";
}

Normalizer read_strip(const JsonObjectReader& in) {
  in.allow_only({"type", "strip_left", "strip_right"});
  return [left = in.flag("strip_left", true), right = in.flag("strip_right", true)](std::string text, TextBudget&) {
    return strip(text, left, right);
  };
}

Normalizer read_sequence(const JsonObjectReader& in) {
  in.allow_only({"type", "normalizers"});
  std::vector<Normalizer> steps;
  for (const JsonObjectReader& step : in.each("normalizers")) steps.push_back(read_normalizer(step));
  return [steps](std::string text, TextBudget& budget) {
    for (const Normalizer& step : steps) {
      text = step(std::move(text), budget);
      budget.spend(text.size());
    }
    return text;
  };
}

}  // namespace

Normalizer read_normalizer(const JsonObjectReader& in) {
  const std::string type = in.text("type");
  if (type == "Sequence") return read_sequence(in);
  if (type == "NFC") return read_normal_form(in, NormalForm::nfc);
  if (type == "NFD") return read_normal_form(in, NormalForm::nfd);
  if (type == "NFKC") return read_normal_form(in, NormalForm::nfkc);
  if (type == "NFKD") return read_normal_form(in, NormalForm::nfkd);
  if (type == "Prepend") return read_prepend(in);
  if (type == "Replace") return read_replace(in);
  if (type == "Strip") return read_strip(in);
  if (type == "Lowercase") {
    in.allow_only({"type"});
    return [](std::string text, TextBudget&) { return lowercase(text); };
  }
  if (type == "ByteLevel") {
    in.allow_only({"type"});
    return [](std::string text, TextBudget&) { return bytes_to_alphabet(text); };
  }
  in.fail("normalizer '" + printable(type) + "' is not implemented");
}

}  // namespace peft::text

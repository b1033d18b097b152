#include "text/pattern.h"

#include <oniguruma.h>

#include <algorithm>
#include <mutex>

#include "peft/error.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

void cover(std::vector<Span>& spans, std::size_t& done, std::size_t begin, std::size_t end) {
  if (done < begin) spans.push_back({done, begin, false});
  spans.push_back({begin, end, true});
  done = end;
}

void finish(std::vector<Span>& spans, std::size_t done, std::size_t size) {
  if (done < size) spans.push_back({done, size, false});
}

class Literal : public Pattern {
 public:
  explicit Literal(std::string text) : text_(std::move(text)) {}
  std::vector<Span> spans(std::string_view text) const override {
    std::vector<Span> all;
    std::size_t done = 0;
    if (!text_.empty())
      for (auto at = text.find(text_); at != text.npos; at = text.find(text_, done))
        cover(all, done, at, at + text_.size());
    finish(all, done, text.size());
    return all;
  }

 private:
  std::string text_;
};

class Characters : public Pattern {
 public:
  explicit Characters(bool (*belongs)(char32_t)) : belongs_(belongs) {}
  std::vector<Span> spans(std::string_view text) const override {
    std::vector<Span> all;
    std::size_t done = 0;
    for (std::size_t at = 0; at < text.size(); at += char_length(text[at]))
      if (belongs_(char_at(text, at))) cover(all, done, at, at + char_length(text[at]));
    finish(all, done, text.size());
    return all;
  }

 private:
  bool (*belongs_)(char32_t);
};

const OnigUChar* bytes(const char* text) { return reinterpret_cast<const OnigUChar*>(text); }

std::string onig_message(int code, OnigErrorInfo* info) {
  OnigUChar text[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = onig_error_code_to_str(text, code, info);
  return {reinterpret_cast<const char*>(text), static_cast<std::size_t>(n)};
}

class Regex : public Pattern {
 public:
  Regex(const std::string& expression, const std::string& where) : where_(where) {
    static std::once_flag once;
    std::call_once(once, [] {
      OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
      onig_initialize(encodings, 1);
    });
    OnigErrorInfo info{};
    const int code = onig_new(&regex_, bytes(expression.data()), bytes(expression.data() + expression.size()),
                              ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
    if (code != ONIG_NORMAL)
      throw InputError(where + ": the regular expression '" + printable(expression) +
                       "' does not compile: " + printable(onig_message(code, &info)));
  }
  ~Regex() override { onig_free(regex_); }
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  std::vector<Span> spans(std::string_view text) const override {
    const std::unique_ptr<OnigRegion, void (*)(OnigRegion*)> region(onig_region_new(),
                                                                    [](OnigRegion* r) { onig_region_free(r, 1); });
    std::vector<Span> all;
    std::size_t done = 0;
    for (std::size_t from = 0; from <= text.size();) {
      const int code =
          onig_search(regex_, bytes(text.data()), bytes(text.data() + text.size()), bytes(text.data() + from),
                      bytes(text.data() + text.size()), region.get(), ONIG_OPTION_NONE);
      if (code == ONIG_MISMATCH) break;
      if (code < 0) throw InputError(where_ + ": the regular expression gave up: " + onig_message(code, nullptr));
      const auto begin = static_cast<std::size_t>(region->beg[0]), end = static_cast<std::size_t>(region->end[0]);
      if (begin < end) cover(all, done, begin, end);  // empty matches split nothing
      from = begin < end ? end : end < text.size() ? end + char_length(text[end]) : end + 1;
    }
    finish(all, done, text.size());
    return all;
  }

 private:
  regex_t* regex_ = nullptr;
  std::string where_;
};

/// Joins a match to its neighbour in the order of the list, once: «a--» gives «a-», «-».
std::vector<Span> merge_matches(const std::vector<Span>& spans) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& span : spans) {
    if (span.match && !previous && !out.empty()) {
      out.back().begin = std::min(out.back().begin, span.begin);
      out.back().end = std::max(out.back().end, span.end);
    } else {
      out.push_back(span);
    }
    previous = span.match;
  }
  return out;
}

std::vector<Span> merge_runs(const std::vector<Span>& spans) {
  std::vector<Span> out;
  for (const Span& span : spans) {
    if (!out.empty() && out.back().match == span.match)
      out.back().end = span.end;
    else
      out.push_back(span);
  }
  return out;
}

}  // namespace

std::shared_ptr<const Pattern> literal(std::string text) { return std::make_shared<Literal>(std::move(text)); }

std::shared_ptr<const Pattern> regex(const std::string& expression, const std::string& where) {
  return std::make_shared<Regex>(expression, where);
}

std::shared_ptr<const Pattern> characters(bool (*belongs)(char32_t)) { return std::make_shared<Characters>(belongs); }

std::shared_ptr<const Pattern> read_pattern(const Fields& in) {
  const Fields pattern = in.at("pattern");
  pattern.only({"String", "Regex"});
  if (pattern.has("String")) return literal(pattern.text("String"));
  return regex(pattern.text("Regex"), pattern.where());
}

Behavior read_behavior(const Fields& in, const std::string& otherwise) {
  const std::string name = in.text("behavior", otherwise);
  if (name == "Removed") return Behavior::removed;
  if (name == "Isolated") return Behavior::isolated;
  if (name == "MergedWithPrevious") return Behavior::merged_with_previous;
  if (name == "MergedWithNext") return Behavior::merged_with_next;
  if (name == "Contiguous") return Behavior::contiguous;
  in.fail("behavior '" + printable(name) + "' is not implemented");
}

std::vector<Span> split(std::string_view text, const Pattern& pattern, Behavior behavior, bool invert) {
  std::vector<Span> spans = pattern.spans(text);
  if (invert)
    for (Span& span : spans) span.match = !span.match;
  switch (behavior) {
    case Behavior::isolated:
      break;
    case Behavior::removed:
      spans.erase(std::remove_if(spans.begin(), spans.end(), [](const Span& span) { return span.match; }), spans.end());
      break;
    case Behavior::contiguous:
      return merge_runs(spans);
    case Behavior::merged_with_previous:
      return merge_matches(spans);
    case Behavior::merged_with_next:
      std::reverse(spans.begin(), spans.end());
      spans = merge_matches(spans);
      std::reverse(spans.begin(), spans.end());
      break;
  }
  return spans;
}

std::string replace(std::string_view text, const Pattern& pattern, const std::string& content) {
  std::string out;
  out.reserve(text.size());
  for (const Span& span : pattern.spans(text)) {
    if (span.match)
      out += content;
    else
      out += text.substr(span.begin, span.end - span.begin);
  }
  return out;
}

}  // namespace peft::text

#include "text/tokenizer/added_tokens.h"

#include <algorithm>

#include "peft/base/error.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

/// Where the character before `at` begins.
std::size_t before(std::string_view text, std::size_t at) {
  do --at;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool word_ends(std::string_view text, std::size_t at) { return at > 0 && is_word(char_at(text, before(text, at))); }
bool word_starts(std::string_view text, std::size_t at) { return at < text.size() && is_word(char_at(text, at)); }

/// Where the blanks before `at` begin, not before `from`.
std::size_t skip_spaces_back(std::string_view text, std::size_t at, std::size_t from) {
  while (at > from && is_space(char_at(text, before(text, at)))) at = before(text, at);
  return at;
}

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (at < text.size() && is_space(char_at(text, at))) at += char_length(text[at]);
  return at;
}

/// As in a GGUF. A text is searched for a token from each of its bytes on.
constexpr std::size_t longest = 4096;

uint64_t edge(uint32_t node, char c) { return uint64_t{node} << 8 | static_cast<unsigned char>(c); }

}  // namespace

void AddedTokens::Trie::add(std::string_view text, std::size_t token) {
  uint32_t node = 0;
  for (const char c : text) {
    const auto [found, fresh] = next_.try_emplace(edge(node, c), nodes_);
    if (fresh) ++nodes_;
    node = found->second;
  }
  tokens_.emplace(node, token);
  starts_[static_cast<unsigned char>(text[0])] = true;
}

std::size_t AddedTokens::Trie::find(std::string_view text, std::size_t at, std::size_t& length) const {
  std::size_t best = std::string_view::npos;
  if (!starts_[static_cast<unsigned char>(text[at])]) return best;
  uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto step = next_.find(edge(node, text[i]));
    if (step == next_.end()) break;
    node = step->second;
    const auto token = tokens_.find(node);
    if (token == tokens_.end()) continue;
    best = token->second;
    length = i + 1 - at;
  }
  return best;
}

AddedTokens::AddedTokens(const std::vector<Fields>& tokens, const Bpe& model, const Normalizer& normalizer) {
  for (const Fields& in : tokens) {
    in.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    Token token{in.integer("id"),
                in.text("content"),
                in.flag("special", false),
                in.flag("single_word", false),
                in.flag("lstrip", false),
                in.flag("rstrip", false),
                false};
    token.normalized = in.flag("normalized", !token.special);
    if (token.content.empty()) in.fail("'content' is empty");
    if (token.content.size() > longest) in.fail("'content' is longer than " + std::to_string(longest) + " bytes");
    const auto known = model.id(token.content);
    const int64_t expected = known ? *known : std::max(size_, model.count());
    if (token.id != expected)
      in.fail("the id " + std::to_string(token.id) + " of '" + printable(token.content) +
              "' does not fit its place: " + std::to_string(expected) + " would");
    if (!by_content_.emplace(token.content, tokens_.size()).second)
      in.fail("the token '" + printable(token.content) + "' stands twice");
    by_id_.emplace(token.id, tokens_.size());
    size_ = std::max(size_, token.id + 1);
    TextBudget budget(token.content.size(), in.where());
    const std::string content = token.normalized && normalizer ? normalizer(token.content, budget) : token.content;
    if (!content.empty()) (token.normalized ? normalized_ : raw_).add(content, tokens_.size());
    tokens_.push_back(std::move(token));
  }
}

void AddedTokens::cut(const Part& part, const Trie& trie, std::vector<Part>& out) const {
  const std::string_view text = part.text;
  std::size_t done = 0, blanks = 0;  // up to which all behind the last token are blanks
  const auto rest = [&](std::size_t end) {
    if (done < end) out.push_back({std::nullopt, part.text.substr(done, end - done), part.first && done == 0});
  };
  for (std::size_t at = 0, length = 0; at < text.size();) {
    const std::size_t index = trie.find(text, at, length);
    if (index == std::string_view::npos) {
      ++at;
      continue;
    }
    const Token& token = tokens_[index];
    std::size_t begin = at, end = at + length;
    at = end;
    if (token.single_word && (word_ends(text, begin) || word_starts(text, end))) continue;
    if (token.lstrip) begin = std::max(skip_spaces_back(text, begin, done), done);
    if (token.rstrip) end = blanks = end <= blanks ? blanks : skip_spaces(text, end);
    rest(begin);
    out.push_back({token.id, {}, part.first && done == 0});
    done = end;  // a token among the spaces that rstrip took is found all the same, as the Python library does
  }
  rest(text.size());
}

std::vector<Part> AddedTokens::extract(const std::string& text, const Normalizer& normalizer,
                                       TextBudget& budget) const {
  std::vector<Part> raw, out;
  cut({std::nullopt, text, true}, raw_, raw);
  for (Part& part : raw) {
    if (part.id) {
      out.push_back(std::move(part));
      continue;
    }
    if (normalizer) part.text = normalizer(std::move(part.text), budget);
    budget.spend(part.text.size());
    cut(part, normalized_, out);
  }
  return out;
}

std::optional<int64_t> AddedTokens::id(const std::string& token) const {
  const auto found = by_content_.find(token);
  if (found == by_content_.end()) return std::nullopt;
  return tokens_[found->second].id;
}

const std::string* AddedTokens::token(int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second].content;
}

bool AddedTokens::special(int64_t id) const {
  const auto found = by_id_.find(id);
  return found != by_id_.end() && tokens_[found->second].special;
}

}  // namespace peft::text

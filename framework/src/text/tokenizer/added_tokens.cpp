#include "text/tokenizer/added_tokens.h"

#include <algorithm>

#include "peft/base/error.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

/// Offset of the character before `at`.
std::size_t previous(std::string_view text, std::size_t at) {
  do --at;
  while ((static_cast<unsigned char>(text[at]) & 0xC0) == 0x80);
  return at;
}

bool word_ends(std::string_view text, std::size_t at) { return at > 0 && is_word(char_at(text, previous(text, at))); }
bool word_starts(std::string_view text, std::size_t at) { return at < text.size() && is_word(char_at(text, at)); }

/// Offset of the spaces before `at`, but not before `from`.
std::size_t skip_spaces_back(std::string_view text, std::size_t at, std::size_t from) {
  while (at > from && is_space(char_at(text, previous(text, at)))) at = previous(text, at);
  return at;
}

std::size_t skip_spaces(std::string_view text, std::size_t at) {
  while (at < text.size() && is_space(char_at(text, at))) at += char_length(text[at]);
  return at;
}

/// The limit for GGUF tokens, too. Each byte of a text can start a search for tokens of this length.
constexpr std::size_t kMaxTokenBytes = 4096;

uint64_t edge(uint32_t node, char c) { return uint64_t{node} << 8 | static_cast<unsigned char>(c); }

}  // namespace

void AddedTokens::Trie::add(std::string_view text, std::size_t token) {
  uint32_t node = 0;
  for (const char c : text) {
    const auto [found, added] = next_.try_emplace(edge(node, c), nodes_);
    if (added) ++nodes_;
    node = found->second;
  }
  tokens_.emplace(node, token);
  starts_[static_cast<unsigned char>(text[0])] = true;
}

std::size_t AddedTokens::Trie::find(std::string_view text, std::size_t at, std::size_t& length) const {
  std::size_t longest = std::string_view::npos;
  if (!starts_[static_cast<unsigned char>(text[at])]) return longest;
  uint32_t node = 0;
  for (std::size_t i = at; i < text.size(); ++i) {
    const auto step = next_.find(edge(node, text[i]));
    if (step == next_.end()) break;
    node = step->second;
    const auto token = tokens_.find(node);
    if (token == tokens_.end()) continue;
    longest = token->second;
    length = i + 1 - at;
  }
  return longest;
}

AddedTokens::AddedTokens(const std::vector<JsonObjectReader>& tokens, const Bpe& model, const Normalizer& normalizer) {
  for (const JsonObjectReader& in : tokens) {
    in.allow_only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
    Token token{in.integer("id"),
                in.text("content"),
                in.flag("special", false),
                in.flag("single_word", false),
                in.flag("lstrip", false),
                in.flag("rstrip", false),
                false};
    token.normalized = in.flag("normalized", !token.special);
    if (token.content.empty()) in.fail("'content' is empty");
    if (token.content.size() > kMaxTokenBytes)
      in.fail("'content' is longer than " + std::to_string(kMaxTokenBytes) + " bytes");
    const auto model_id = model.id(token.content);
    const int64_t expected = model_id ? *model_id : std::max(size_, model.count());
    if (token.id != expected)
      in.fail("'" + printable(token.content) + "' has the id " + std::to_string(token.id) + ", expected " +
              std::to_string(expected));
    if (!by_content_.emplace(token.content, tokens_.size()).second)
      in.fail("the token '" + printable(token.content) + "' appears twice");
    by_id_.emplace(token.id, tokens_.size());
    size_ = std::max(size_, token.id + 1);
    TextBudget budget(token.content.size(), in.location());
    const std::string content = token.normalized && normalizer ? normalizer(token.content, budget) : token.content;
    if (!content.empty()) (token.normalized ? normalized_ : raw_).add(content, tokens_.size());
    tokens_.push_back(std::move(token));
  }
}

void AddedTokens::split(const TextPiece& piece, const Trie& trie, std::vector<TextPiece>& out) const {
  const std::string_view text = piece.text;
  std::size_t done = 0;
  std::size_t spaces_end = 0;  // end of the spaces after the last token with rstrip, so that they are scanned only once
  const auto add_text = [&](std::size_t end) {
    if (done < end) out.push_back({std::nullopt, piece.text.substr(done, end - done), piece.first && done == 0});
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
    if (token.rstrip) end = spaces_end = end <= spaces_end ? spaces_end : skip_spaces(text, end);
    add_text(begin);
    out.push_back({token.id, {}, piece.first && done == 0});
    done = end;  // `at` stays: HF tokenizers also finds tokens among the spaces that rstrip removed
  }
  add_text(text.size());
}

std::vector<TextPiece> AddedTokens::extract(const std::string& text, const Normalizer& normalizer,
                                            TextBudget& budget) const {
  std::vector<TextPiece> raw, out;
  split({std::nullopt, text, true}, raw_, raw);
  for (TextPiece& piece : raw) {
    if (piece.id) {
      out.push_back(std::move(piece));
      continue;
    }
    if (normalizer) piece.text = normalizer(std::move(piece.text), budget);
    budget.spend(piece.text.size());
    split(piece, normalized_, out);
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

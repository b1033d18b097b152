#include "text/tokenizer/bpe.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <tuple>

#include "peft/base/error.h"
#include "text/unicode.h"

namespace peft::text {

namespace {

constexpr std::size_t kMaxCachedWords = 20000, kMaxCachedWordBytes = 256;

uint64_t pair_key(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

void refuse_affix(const JsonObjectReader& in, const char* key) {
  if (!in.text(key, "").empty()) in.fail("option '" + std::string(key) + "' is not implemented");
}

}  // namespace

Bpe::Bpe(const JsonObjectReader& in) : location_(in.location()) {
  if (in.text("type", "BPE") != "BPE")
    in.fail("model '" + printable(in.text("type")) + "' is not implemented; supported: BPE");
  in.allow_only({"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk",
                 "byte_fallback", "ignore_merges", "vocab", "merges"});
  if (in.has("dropout") && in.number("dropout") != 0) in.fail("option 'dropout' is not implemented");
  refuse_affix(in, "continuing_subword_prefix");
  refuse_affix(in, "end_of_word_suffix");
  has_unknown_ = in.has("unk_token");
  unknown_ = in.text("unk_token", "");
  fuse_unknown_ = in.flag("fuse_unk", false);
  byte_fallback_ = in.flag("byte_fallback", false);
  ignore_merges_ = in.flag("ignore_merges", false);
  read_vocabulary(in);
  read_merges(in);
}

void Bpe::read_vocabulary(const JsonObjectReader& in) {
  const auto& vocabulary = in.object("vocab").get_ref<const nlohmann::json::object_t&>();
  uint32_t max_id = 0;
  for (const auto& [token, value] : vocabulary) {
    if (!value.is_number_unsigned() || value.get<uint64_t>() >= kMaxVocabulary)
      in.fail("vocab: the id of '" + printable(token) + "' must be an integer from 0 to " +
              std::to_string(kMaxVocabulary - 1));
    max_id = std::max(max_id, value.get<uint32_t>());
  }
  ids_.reserve(vocabulary.size());
  tokens_.resize(vocabulary.empty() ? 0 : max_id + 1);
  for (const auto& [token, value] : vocabulary) {
    const auto id = value.get<uint32_t>();
    if (tokens_[id] != nullptr)
      in.fail("vocab: '" + printable(*tokens_[id]) + "' and '" + printable(token) + "' have the same id " +
              std::to_string(id));
    tokens_[id] = &ids_.emplace(token, id).first->first;
  }
}

uint32_t Bpe::require_id(const std::string& token, const JsonObjectReader& in, std::size_t merge) const {
  const auto found = ids_.find(token);
  if (found == ids_.end())
    in.fail("merges[" + std::to_string(merge) + "]: '" + printable(token) + "' is not in the vocabulary");
  return found->second;
}

std::vector<std::pair<std::string, std::string>> merge_pairs(const JsonObjectReader& in) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const nlohmann::json& merge : in.array("merges")) {
    std::string left, right;
    if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      left = merge[0].get<std::string>();
      right = merge[1].get<std::string>();
    } else if (merge.is_string()) {
      const auto& text = merge.get_ref<const std::string&>();
      const std::size_t space = text.find(' ');
      if (space != text.npos && text.find(' ', space + 1) == text.npos) {
        left = text.substr(0, space);
        right = text.substr(space + 1);
      }
    }
    if (left.empty() || right.empty())
      in.fail("merges[" + std::to_string(pairs.size()) + "] must be two tokens: \"a b\" or [\"a\", \"b\"]");
    pairs.emplace_back(std::move(left), std::move(right));
  }
  return pairs;
}

void Bpe::read_merges(const JsonObjectReader& in) {
  const auto pairs = merge_pairs(in);
  merges_.reserve(pairs.size());
  for (std::size_t index = 0; index < pairs.size(); ++index) {
    const auto& [left, right] = pairs[index];
    const Merge value{static_cast<uint32_t>(index), require_id(left + right, in, index)};
    merges_[pair_key(require_id(left, in, index), require_id(right, in, index))] = value;
  }
}

std::optional<int64_t> Bpe::id(const std::string& token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

const std::string* Bpe::token(int64_t id) const { return id >= 0 && id < size() ? tokens_[id] : nullptr; }

const Bpe::Merge* Bpe::find(uint32_t left, uint32_t right) const {
  const auto found = merges_.find(pair_key(left, right));
  return found == merges_.end() ? nullptr : &found->second;
}

bool Bpe::add_bytes(std::string_view c, std::vector<Symbol>& out) const {
  const std::size_t before = out.size();
  for (const char byte : c) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned char>(byte));
    const auto found = ids_.find(name);
    if (found == ids_.end()) {
      out.resize(before);
      return false;
    }
    out.push_back({found->second, 0, 0, false});
  }
  return true;
}

std::vector<Bpe::Symbol> Bpe::symbols(const std::string& word) const {
  if (word.size() > static_cast<std::size_t>(std::numeric_limits<int32_t>::max()))
    throw InputError(location_ + ": a word is longer than 2 GiB");
  std::vector<Symbol> out;
  out.reserve(word.size());
  bool pending = false;  // an unknown token that is not written yet: HF writes it only before the next known character
  const auto write_unknown = [&] {
    const auto found = ids_.find(unknown_);
    if (found == ids_.end())
      throw InputError(location_ + ": a character has no token and unk_token '" + printable(unknown_) +
                       "' is not in the vocabulary");
    out.push_back({found->second, 0, 0, false});
  };
  for (std::size_t at = 0, length; at < word.size(); at += length) {
    length = char_length(word[at]);
    const auto found = ids_.find(word.substr(at, length));
    if (found != ids_.end()) {
      if (pending) write_unknown();
      pending = false;
      out.push_back({found->second, 0, 0, false});
    } else if (!(byte_fallback_ && add_bytes(std::string_view(word).substr(at, length), out)) && has_unknown_) {
      if (pending && !fuse_unknown_) write_unknown();
      pending = true;
    }
  }
  if (pending) write_unknown();
  for (std::size_t i = 0; i < out.size(); ++i) {
    out[i].previous = static_cast<int32_t>(i) - 1;
    out[i].next = i + 1 < out.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
  return out;
}

std::vector<uint32_t> Bpe::merge(const std::string& word) const {
  std::vector<Symbol> all = symbols(word);
  using Candidate = std::tuple<uint32_t, int32_t, uint32_t>;  // rank, position of the left symbol, merged id
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto offer = [&](int32_t left) {
    if (left < 0 || all[left].next < 0) return;
    if (const Merge* found = find(all[left].id, all[all[left].next].id)) queue.emplace(found->rank, left, found->id);
  };
  for (std::size_t i = 0; i + 1 < all.size(); ++i) offer(static_cast<int32_t>(i));
  while (!queue.empty()) {
    const auto [rank, at, id] = queue.top();
    queue.pop();
    Symbol& left = all[at];
    if (left.merged || left.next < 0) continue;
    Symbol& right = all[left.next];
    const Merge* current = find(left.id, right.id);
    if (current == nullptr || current->id != id) continue;  // one of the two has been merged since
    left.id = id;
    right.merged = true;
    left.next = right.next;
    if (left.next >= 0) all[left.next].previous = at;
    offer(left.previous);
    offer(at);
  }
  std::vector<uint32_t> ids;
  for (const Symbol& symbol : all)
    if (!symbol.merged) ids.push_back(symbol.id);
  return ids;
}

void Bpe::encode(const std::string& word, std::vector<int64_t>& ids) const {
  if (ignore_merges_) {
    const auto token = ids_.find(word);
    if (token != ids_.end()) {
      ids.push_back(token->second);
      return;
    }
  }
  if (word.size() > kMaxCachedWordBytes) {
    for (const uint32_t id : merge(word)) ids.push_back(id);
    return;
  }
  {
    const std::shared_lock lock(mutex_);
    const auto found = cache_.find(word);
    if (found != cache_.end()) {
      ids.insert(ids.end(), found->second.begin(), found->second.end());
      return;
    }
  }
  std::vector<uint32_t> merged = merge(word);
  ids.insert(ids.end(), merged.begin(), merged.end());
  const std::unique_lock lock(mutex_);
  if (cache_.size() < kMaxCachedWords) cache_.emplace(word, std::move(merged));
}

}  // namespace peft::text

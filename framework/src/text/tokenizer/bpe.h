#pragma once

#include <cstdint>
#include <list>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "files/json_object_reader.h"

namespace peft::text {

/// The pairs in `merges`, ordered by rank. Each is ["a", "b"], or "a b" in older files.
std::vector<std::pair<std::string, std::string>> merge_pairs(const JsonObjectReader& model);

/// Upper limit of token ids (exclusive), so that a table indexed by id cannot exhaust memory.
constexpr int64_t kMaxVocabulary = 1 << 22;

/// Byte pair encoding (Sennrich et al. 2016), with the ids of HF tokenizers' `BPE`.
class Bpe {
 public:
  /// Reads the object `model`. Throws InputError for an option that is not implemented.
  explicit Bpe(const JsonObjectReader& in);

  /// Appends the ids of one pre-tokenized word. Thread-safe.
  void encode(const std::string& word, std::vector<int64_t>& ids) const;
  std::optional<int64_t> id(const std::string& token) const;
  /// Null if the id does not exist.
  const std::string* token(int64_t id) const;
  int64_t count() const { return static_cast<int64_t>(ids_.size()); }
  int64_t size() const { return static_cast<int64_t>(tokens_.size()); }

 private:
  struct Merge {
    uint32_t rank, id;
  };
  struct Symbol {
    uint32_t id;
    int32_t previous, next;  ///< -1 if there is none
    bool merged;             ///< into the symbol before it
  };

  void read_vocabulary(const JsonObjectReader& in);
  void read_merges(const JsonObjectReader& in);
  uint32_t require_id(const std::string& token, const JsonObjectReader& in, std::size_t merge) const;
  const Merge* find(uint32_t left, uint32_t right) const;
  std::vector<Symbol> symbols(const std::string& word) const;
  std::vector<uint32_t> merge(const std::string& word) const;
  bool add_bytes(std::string_view c, std::vector<Symbol>& out) const;

  std::string location_;
  std::unordered_map<std::string, uint32_t> ids_;
  std::vector<const std::string*> tokens_;  ///< keys of ids_
  std::unordered_map<uint64_t, Merge> merges_;
  std::string unknown_;
  bool has_unknown_, fuse_unknown_, byte_fallback_, ignore_merges_;
  mutable std::shared_mutex mutex_;
  mutable std::unordered_map<std::string, std::vector<uint32_t>> cache_;
};

}  // namespace peft::text

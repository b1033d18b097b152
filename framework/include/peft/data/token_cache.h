#pragma once

#include <optional>
#include <string>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/text/text.h"

namespace peft {

/// Tokenized data sets in a folder, each a file named by the digest of everything that determines it: the data's bytes,
/// the text pipeline, and the options. A corrupt or truncated file, one with another key, or one that another user than
/// root could have written is ignored and replaced. Several processes of one user can use one folder. A folder that
/// other users can write to is not used; a new one has mode 0700.
class PEFT_API TokenCache {
 public:
  static constexpr uint64_t default_limit = uint64_t{1} << 30;
  /// `folder` as in [data] cache: "auto" is $PEFT_CACHE/tokens, $XDG_CACHE_HOME/peft/tokens or ~/.cache/peft/tokens,
  /// "" no cache. If the files exceed `limit` bytes in total, the least recently used ones are removed.
  explicit TokenCache(const std::string& folder, uint64_t limit = default_limit);

  /// Reads the data set from the cache, or calls load_dataset() and stores the result. The tokenizer is built only on a
  /// miss. Sets Dataset::cached on a hit, and cache_error if it could not be stored. Throws what load_dataset() throws.
  Dataset load(const StringList& files, const DataOptions& options, const LazyText& text) const;

  const std::string& folder() const { return folder_; }  ///< "": no cache

 private:
  std::optional<Dataset> find(const std::string& path, const std::string& key, std::size_t files) const;
  void store(const std::string& path, const std::string& key, const Dataset& set) const;

  std::string folder_;
  uint64_t limit_;
};

}  // namespace peft

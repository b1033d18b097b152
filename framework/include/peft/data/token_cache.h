#pragma once

#include <string>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/text/text.h"

namespace peft {

/// Tokenised data sets in a folder, each a file named by the digest of all it was made of: the data's bytes, what the
/// checkpoint says about text, and the options. A file that is damaged, cut off or foreign is not trusted but made
/// anew. Several processes may use one folder.
class PEFT_API TokenCache {
 public:
  static constexpr uint64_t default_limit = uint64_t{1} << 30;
  /// `folder` as in [data] cache: "auto" is $PEFT_CACHE/tokens, $XDG_CACHE_HOME/peft/tokens or ~/.cache/peft/tokens,
  /// "" no cache at all. Beyond `limit` bytes in all, the files that were not used for longest are removed.
  explicit TokenCache(const std::string& folder, uint64_t limit = default_limit);

  /// As load_dataset(), which is called where the cache does not hold the result; only then is the tokenizer built.
  /// Whether it did, and why the result could not be kept, the data set says. Throws what load_dataset() throws.
  Dataset load(const StringList& files, const DataOptions& options, const LazyText& text) const;

  const std::string& folder() const { return folder_; }  ///< "": no cache

 private:
  void keep(const std::string& path, const std::string& key, const Dataset& set) const;

  std::string folder_;
  uint64_t limit_;
};

}  // namespace peft

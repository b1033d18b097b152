#pragma once

#include <optional>
#include <string>

#include "peft/base/export.h"
#include "peft/files/directory_lock.h"

namespace peft {

/// A folder that is filled under another name, `PATH.writing`, and appears by commit(), or not at all: what is left
/// unpublished goes with the object. Every failure is a ResourceError.
class PEFT_API AtomicDirectory {
 public:
  static constexpr const char* kStagingSuffix = ".writing";
  static constexpr const char* kTrashSuffix = ".deleting";  ///< of one whose place is taken, for a moment
  /// Removes what a process that was killed left under that name, and keeps it until it is published or gone; what
  /// another process is writing there is refused.
  /// `replace_existing`: commit() may take the place of one of that name.
  explicit AtomicDirectory(const std::string& path, bool replace_existing = false);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  const std::string& path() const { return draft_; }  ///< where to write
  std::string file(const std::string& name) const;    ///< a file's path in it
  /// Syncs the folder, gives it its name, syncs what holds it.
  void commit();

 private:
  [[noreturn]] void fail(const std::string& why) const;
  std::string path_, draft_;
  bool over_another_;
  std::optional<DirectoryLock> lock_;
};

/// Makes a folder, with those above it, that stays through a loss of power. One may be there already. Throws
/// ResourceError.
PEFT_API void make_folder(const std::string& path);

}  // namespace peft

#pragma once

#include <optional>
#include <string>

#include "peft/base/export.h"
#include "peft/files/directory_lock.h"

namespace peft {

/// Directory written under a temporary name, `PATH.writing`, and renamed on commit(). The destructor deletes it if
/// commit() was not called. Throws ResourceError.
class PEFT_API AtomicDirectory {
 public:
  static constexpr const char* kStagingSuffix = ".writing";
  static constexpr const char* kTrashSuffix = ".deleting";  ///< of a replaced directory that is being deleted
  /// Creates and locks the temporary directory. Deletes one that a killed process left, and throws FolderInUse if
  /// another process is writing one. `replace_existing`: commit() replaces a directory of that name.
  explicit AtomicDirectory(const std::string& path, bool replace_existing = false);
  ~AtomicDirectory();
  AtomicDirectory(const AtomicDirectory&) = delete;
  AtomicDirectory& operator=(const AtomicDirectory&) = delete;
  const std::string& path() const { return staging_; }  ///< the temporary directory: write here
  std::string file(const std::string& name) const;      ///< path of a file in it
  /// Syncs the directory, renames it and syncs its parent directory.
  void commit();

 private:
  [[noreturn]] void fail(const std::string& why) const;
  std::string path_, staging_;
  bool replace_existing_;
  std::optional<DirectoryLock> lock_;
};

/// Creates a folder and its parents, if they do not exist, and syncs them so that they survive a power failure. Throws
/// ResourceError.
PEFT_API void make_folder(const std::string& path);

}  // namespace peft

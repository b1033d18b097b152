#pragma once

#include <string>

#include "peft/base/error.h"
#include "peft/base/export.h"

namespace peft {

/// Another process holds the folder's lock.
class PEFT_API FolderInUse : public ResourceError {
 public:
  explicit FolderInUse(const std::string& folder);
  ~FolderInUse() override;
};

/// Advisory lock on a folder, held until the object is destroyed or the process ends. Only DirectoryLock respects it.
class PEFT_API DirectoryLock {
 public:
  /// Throws FolderInUse if another process holds the lock, ResourceError if the folder cannot be opened. Succeeds on a
  /// file system without locks.
  explicit DirectoryLock(const std::string& folder);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int folder_;
};

}  // namespace peft

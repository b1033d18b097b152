#pragma once

#include <string>

#include "peft/base/error.h"
#include "peft/base/export.h"

namespace peft {

/// Another process has it.
class PEFT_API FolderInUse : public ResourceError {
 public:
  explicit FolderInUse(const std::string& folder);
  ~FolderInUse() override;
};

/// Keeps other processes that ask for the same out of a folder, until it goes or the process ends.
class PEFT_API DirectoryLock {
 public:
  /// Throws FolderInUse where another process holds it, ResourceError where it cannot be opened. A file system without
  /// locks is taken as it is.
  explicit DirectoryLock(const std::string& folder);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;
  DirectoryLock& operator=(const DirectoryLock&) = delete;

 private:
  int folder_;
};

}  // namespace peft

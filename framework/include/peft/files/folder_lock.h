#pragma once

#include <string>

#include "peft/error.h"
#include "peft/export.h"

namespace peft {

/// Another process has it.
class PEFT_API FolderInUse : public ResourceError {
 public:
  explicit FolderInUse(const std::string& folder);
  ~FolderInUse() override;
};

/// Keeps other processes that ask for the same out of a folder, until it goes or the process ends.
class PEFT_API FolderLock {
 public:
  /// Throws FolderInUse where another process holds it, ResourceError where it cannot be opened. A file system without
  /// locks is taken as it is.
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int folder_;
};

}  // namespace peft

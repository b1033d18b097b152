#pragma once

#include <string>

#include "peft/export.h"

namespace peft {

/// Keeps other processes that ask for the same out of a folder, until it goes or the process ends.
class PEFT_API FolderLock {
 public:
  /// Throws ResourceError where another process holds it, or it cannot be opened. A file system without locks is taken
  /// as it is.
  explicit FolderLock(const std::string& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int folder_;
};

}  // namespace peft

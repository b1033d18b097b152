#include "peft/files/directory_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "peft/base/error.h"

namespace peft {

namespace {

/// Whether a path still refers to an open folder. It does not if the process that held the lock has renamed or deleted
/// it.
bool refers_to(const std::string& path, int folder) {
  struct stat by_path{}, by_number{};
  return ::stat(path.c_str(), &by_path) == 0 && ::fstat(folder, &by_number) == 0 &&
         by_path.st_dev == by_number.st_dev && by_path.st_ino == by_number.st_ino;
}

}  // namespace

FolderInUse::FolderInUse(const std::string& folder)
    : ResourceError(printable_path(folder) + ": another run is writing to it") {}
FolderInUse::~FolderInUse() = default;

DirectoryLock::DirectoryLock(const std::string& folder)
    : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0) throw ResourceError(printable_path(folder) + ": cannot be opened: " + std::strerror(errno));
  const bool held = ::flock(folder_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (held || !refers_to(folder, folder_)) {
    ::close(folder_);
    throw FolderInUse(folder);
  }
}

DirectoryLock::~DirectoryLock() { ::close(folder_); }

}  // namespace peft

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

/// Whether a path leads to what is open; it does not where whoever held it took it away meanwhile.
bool leads_to(const std::string& path, int open) {
  struct stat there{}, held{};
  return ::stat(path.c_str(), &there) == 0 && ::fstat(open, &held) == 0 && there.st_dev == held.st_dev &&
         there.st_ino == held.st_ino;
}

}  // namespace

FolderInUse::FolderInUse(const std::string& folder)
    : ResourceError(printable(folder, 4096) + ": another run is writing into it") {}
FolderInUse::~FolderInUse() = default;

DirectoryLock::DirectoryLock(const std::string& folder)
    : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0) throw ResourceError(printable(folder, 4096) + " cannot be opened: " + std::strerror(errno));
  const bool held = ::flock(folder_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  if (held || !leads_to(folder, folder_)) {
    ::close(folder_);
    throw FolderInUse(folder);
  }
}

DirectoryLock::~DirectoryLock() { ::close(folder_); }

}  // namespace peft

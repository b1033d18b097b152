#include "peft/files/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "peft/error.h"

namespace peft {

FolderLock::FolderLock(const std::string& folder)
    : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0) throw ResourceError(printable(folder, 4096) + " cannot be opened: " + std::strerror(errno));
  const bool held = ::flock(folder_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  struct stat now{};
  const bool removed = ::fstat(folder_, &now) == 0 && now.st_nlink == 0;  // by who held it between the two calls
  if (held || removed) {
    ::close(folder_);
    throw ResourceError(printable(folder, 4096) + ": another run is writing into it");
  }
}

FolderLock::~FolderLock() { ::close(folder_); }

}  // namespace peft

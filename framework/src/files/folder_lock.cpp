#include "peft/files/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "peft/error.h"

namespace peft {

FolderLock::FolderLock(const std::string& folder)
    : folder_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
  if (folder_ < 0) throw ResourceError(printable(folder, 4096) + " cannot be opened: " + std::strerror(errno));
  if (::flock(folder_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(folder_);
    throw ResourceError(printable(folder, 4096) + ": another run is writing into it");
  }
}

FolderLock::~FolderLock() { ::close(folder_); }

}  // namespace peft

#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

namespace peft {

/// A file descriptor, closed by the destructor; negative if opening the file failed.
struct Descriptor {
  explicit Descriptor(int opened) : number(opened) {}
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int number;
};

inline Descriptor open_for_reading(const std::string& path) {
  if (path.find('\0') != std::string::npos) {  // the system would open another file
    errno = EINVAL;
    return Descriptor(-1);
  }
  // O_NONBLOCK: opening a named pipe must not wait for a writer.
  return Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

/// Syncs the entries of a folder to disk. If false, errno is the reason.
inline bool sync_folder(const std::string& path) {
  const Descriptor folder(::open(path.empty() ? "." : path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return folder.number >= 0 && (::fsync(folder.number) == 0 || errno == EINVAL);  // EINVAL: cannot sync folders
}

}  // namespace peft

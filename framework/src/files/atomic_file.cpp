#include "files/atomic_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "files/descriptor.h"
#include "peft/base/error.h"

namespace peft {

namespace {

constexpr const char* kWriting = ".writing-";

}  // namespace

bool is_file_draft(const std::string& name) {
  const std::size_t at = name.rfind(kWriting);
  if (!name.starts_with('.') || at == std::string::npos) return false;
  const std::string process = name.substr(at + std::strlen(kWriting));
  return !process.empty() && process.find_first_not_of("0123456789") == std::string::npos;
}

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)) {
  const std::filesystem::path whole(path_);
  draft_ = (whole.parent_path() / ("." + whole.filename().string() + kWriting + std::to_string(::getpid()))).string();
  ::unlink(draft_.c_str());  // of a process of the same number that was killed
  file_ = ::open(draft_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (file_ < 0) fail("created");
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) ::close(file_);
  if (!draft_.empty()) ::unlink(draft_.c_str());
}

void AtomicFile::fail(const char* what) const {
  throw ResourceError(printable(path_, 4096) + ": cannot be " + what + ": " + std::strerror(errno));
}

void AtomicFile::write(const void* data, std::size_t size) {
  constexpr std::size_t most = std::size_t{1} << 30;  // Linux writes less than 2 GiB at a time
  const char* at = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = ::write(file_, at, std::min(size, most));
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("written");
    at += done;
    size -= static_cast<std::size_t>(done);
  }
}

void AtomicFile::commit() {
  if (::fsync(file_) != 0) fail("written");
  const int file = std::exchange(file_, -1);
  if (::close(file) != 0) fail("written");
  if (::rename(draft_.c_str(), path_.c_str()) != 0) fail("renamed into place");
  draft_.clear();
  if (!sync_folder(std::filesystem::path(path_).parent_path().string())) fail("synced");
}

}  // namespace peft

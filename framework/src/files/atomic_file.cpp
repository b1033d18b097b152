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

constexpr const char* kInfix = ".writing-";  // followed by the process id

}  // namespace

bool is_file_draft(const std::string& name) {
  const std::size_t infix = name.rfind(kInfix);
  if (!name.starts_with('.') || infix == std::string::npos) return false;
  const std::string process_id = name.substr(infix + std::strlen(kInfix));
  return !process_id.empty() && process_id.find_first_not_of("0123456789") == std::string::npos;
}

AtomicFile::AtomicFile(std::string path, unsigned mode) : path_(std::move(path)) {
  const std::filesystem::path target(path_);
  staging_ = (target.parent_path() / ("." + target.filename().string() + kInfix + std::to_string(::getpid()))).string();
  ::unlink(staging_.c_str());  // a killed process with the same id may have left it
  file_ = ::open(staging_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
  if (file_ < 0) fail("created");
}

AtomicFile::~AtomicFile() {
  if (file_ >= 0) ::close(file_);
  if (!staging_.empty()) ::unlink(staging_.c_str());
}

void AtomicFile::fail(const char* what) const {
  throw ResourceError(printable_path(path_) + ": cannot be " + what + ": " + std::strerror(errno));
}

void AtomicFile::write(const void* data, std::size_t size) {
  constexpr std::size_t max_write = std::size_t{1} << 30;  // Linux writes less than 2 GiB per call
  const char* next = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t written = ::write(file_, next, std::min(size, max_write));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("written");
    next += written;
    size -= static_cast<std::size_t>(written);
  }
}

void AtomicFile::commit() {
  if (::fsync(file_) != 0) fail("written");
  const int file = std::exchange(file_, -1);
  if (::close(file) != 0) fail("written");
  if (::rename(staging_.c_str(), path_.c_str()) != 0) fail("renamed into place");
  staging_.clear();
  if (!sync_folder(std::filesystem::path(path_).parent_path().string())) fail("synced");
}

}  // namespace peft

#include "files/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <mutex>

#include "files/descriptor.h"
#include "peft/base/error.h"
#include "peft/files/mapped_path.h"

namespace peft {

namespace {

[[noreturn]] void fail(const std::string& path, const char* action) {
  const int code = errno;
  const std::string message = "cannot " + std::string(action) + " " + printable_path(path) + ": " + std::strerror(code);
  if (code == ENOMEM) throw ResourceError(message);
  throw InputError(message);
}

/// List of all open files, for mapped_path(). A signal handler can read it at any time, so readers take no lock.
std::atomic<const MappedFile*> first_open = nullptr;
std::mutex opening;

}  // namespace

MappedFile::MappedFile(std::string path, std::span<const std::byte> bytes, const struct stat& status)
    : path_(std::move(path)), shown_(printable_path(path_)), bytes_(bytes), status_(status) {
  const std::lock_guard lock(opening);
  next_ = first_open.load();
  first_open = this;
}

MappedFile::~MappedFile() {
  {
    const std::lock_guard lock(opening);
    if (first_open == this) first_open = next_.load();
    for (const MappedFile* file = first_open; file != nullptr; file = file->next_)
      if (file->next_ == this) file->next_ = next_.load();
  }
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

const char* mapped_path(const void* address) {
  const auto* byte = static_cast<const std::byte*>(address);
  for (const MappedFile* file = first_open; file != nullptr; file = file->next_)
    if (byte >= file->bytes_.data() && byte < file->bytes_.data() + file->bytes_.size()) return file->shown_.c_str();
  return nullptr;
}

/// A file that was replaced by another one of its name is still mapped as it was.
bool MappedFile::is_modified() const {
  const auto same_time = [](const timespec& a, const timespec& b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
  };
  struct stat now{};
  return ::stat(path_.c_str(), &now) == 0 && now.st_dev == status_.st_dev && now.st_ino == status_.st_ino &&
         !(now.st_size == status_.st_size && same_time(now.st_mtim, status_.st_mtim) &&
           same_time(now.st_ctim, status_.st_ctim));
}

std::string modified_mapped_path() {
  const std::lock_guard lock(opening);
  for (const MappedFile* file = first_open; file != nullptr; file = file->next_)
    if (file->is_modified()) return file->path_;
  return "";
}

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file = open_for_reading(path);
  if (file.number < 0) fail(path, "open");
  struct stat status{};
  if (::fstat(file.number, &status) != 0) fail(path, "examine");
  if (!S_ISREG(status.st_mode)) throw InputError(printable_path(path) + " is not a regular file");
  if (status.st_size <= 0) throw InputError(printable_path(path) + " is empty");
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (data == MAP_FAILED) fail(path, "map");
  return std::shared_ptr<const MappedFile>(new MappedFile(path, {static_cast<const std::byte*>(data), size}, status));
}

}  // namespace peft

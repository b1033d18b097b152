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

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int why = errno;
  const std::string told = "cannot " + std::string(what) + " " + printable(path, 4096) + ": " + std::strerror(why);
  if (why == ENOMEM) throw ResourceError(told);
  throw InputError(told);
}

/// All that are open, for mapped_path: a list that a signal handler may read at any time, so without a lock of its own.
std::atomic<const MappedFile*> first_open = nullptr;
std::mutex opening;

}  // namespace

MappedFile::MappedFile(std::string path, std::span<const std::byte> bytes)
    : path_(std::move(path)), shown_(printable(path_, 4096)), bytes_(bytes) {
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

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const Descriptor file = open_for_reading(path);
  if (file.number < 0) fail(path, "open");
  struct stat status{};
  if (::fstat(file.number, &status) != 0) fail(path, "examine");
  if (!S_ISREG(status.st_mode)) throw InputError(printable(path, 4096) + " is not a regular file");
  if (status.st_size <= 0) throw InputError(printable(path, 4096) + " is empty");
  const auto size = static_cast<std::size_t>(status.st_size);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (data == MAP_FAILED) fail(path, "map");
  return std::shared_ptr<const MappedFile>(new MappedFile(path, {static_cast<const std::byte*>(data), size}));
}

}  // namespace peft

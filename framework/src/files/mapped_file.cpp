#include "files/mapped_file.h"

#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "files/descriptor.h"
#include "peft/error.h"

namespace peft {

namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  throw InputError("cannot " + std::string(what) + " " + printable(path, 4096) + ": " + std::strerror(errno));
}

}  // namespace

MappedFile::MappedFile(std::string path, std::span<const std::byte> bytes) : path_(std::move(path)), bytes_(bytes) {}

MappedFile::~MappedFile() { ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size()); }

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

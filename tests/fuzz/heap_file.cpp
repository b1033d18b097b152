// Replaces files/mapped_file.cpp: see set_file(). A mapping extends to the end of its last page, so AddressSanitizer
// does not detect reads past the end of the file.
#include <cstring>

#include "files/mapped_file.h"
#include "peft/base/error.h"
#include "target.h"

namespace peft {

namespace {
const std::string* current = nullptr;
}

void fuzz::set_file(const std::string& bytes) { current = &bytes; }

MappedFile::MappedFile(std::string path, std::span<const std::byte> bytes, const struct stat& status)
    : path_(std::move(path)), bytes_(bytes), status_(status) {}

MappedFile::~MappedFile() { delete[] bytes_.data(); }

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  if (current->empty()) throw InputError(printable_path(path) + " is empty");
  auto* data = new std::byte[current->size()];
  std::memcpy(data, current->data(), current->size());
  return std::shared_ptr<const MappedFile>(new MappedFile(path, {data, current->size()}, {}));
}

}  // namespace peft

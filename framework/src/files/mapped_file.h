#pragma once

#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace peft {

/// A regular file, mapped read-only for the lifetime of the object.
class MappedFile {
 public:
  /// Throws InputError if the file cannot be opened, is not a regular file, is empty or cannot be mapped, ResourceError
  /// if there is not enough memory or address space.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::string& path() const { return path_; }

 private:
  friend const char* mapped_path(const void* address);
  friend std::string modified_mapped_path();
  MappedFile(std::string path, std::span<const std::byte> bytes, const struct stat& status);
  bool is_modified() const;

  std::string path_, shown_;
  std::span<const std::byte> bytes_;
  const struct stat status_;                               ///< when it was mapped
  mutable std::atomic<const MappedFile*> next_ = nullptr;  ///< in the list of all open files
};

}  // namespace peft

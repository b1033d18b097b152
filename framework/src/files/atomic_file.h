#pragma once

#include <cstddef>
#include <string>

namespace peft {

/// Whether a file of this name is one of an AtomicFile that a killed process left.
bool is_file_draft(const std::string& name);

/// A file that appears whole, by commit(), or not at all. Every failure is a ResourceError.
class AtomicFile {
 public:
  explicit AtomicFile(std::string path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, std::size_t size);
  /// Syncs, renames over `path`, syncs the folder.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;
  std::string path_, draft_;
  int file_ = -1;
};

}  // namespace peft

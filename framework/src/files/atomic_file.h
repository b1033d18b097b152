#pragma once

#include <cstddef>
#include <string>

namespace peft {

/// Whether a file name is that of an AtomicFile's temporary file, which a killed process can leave.
bool is_file_draft(const std::string& name);

/// File written under a temporary name and renamed on commit(). The destructor deletes it if commit() was not called.
/// Throws ResourceError.
class AtomicFile {
 public:
  /// `mode`: permissions of the file, before umask.
  explicit AtomicFile(std::string path, unsigned mode = 0666);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  void write(const void* data, std::size_t size);
  /// Syncs the file, renames it to `path`, which it replaces, and syncs the folder.
  void commit();

 private:
  [[noreturn]] void fail(const char* what) const;
  std::string path_, staging_;
  int file_ = -1;
};

}  // namespace peft

#pragma once
// Reads a shared library as a file, without running any code in it.

#include <elf.h>
#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace peft::detail {

/// Everything that the dynamic loader maps is in the file: a page past the end of a truncated one would kill the
/// process when it is touched.
class ElfFile {
 public:
  /// Throws PluginError for anything but a regular file of root or the effective user that nobody else may write, and
  /// for anything but a complete shared library for this machine.
  explicit ElfFile(const std::string& path);
  ~ElfFile();
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;

  /// The bytes of the section of that name, or nothing. Throws PluginError if it is empty or larger than `max_size`.
  std::optional<std::string> section(const std::string& name, uint64_t max_size) const;
  /// Bytes of the variable that it exports under that name, or nothing.
  std::optional<uint64_t> exported_bytes(const std::string& name) const;

 private:
  [[noreturn]] void refuse(const std::string& why) const;
  void read_headers();
  bool holds(uint64_t offset, uint64_t size) const;
  void read(uint64_t offset, void* out, std::size_t size) const;
  template <class T>
  std::vector<T> read_table(uint64_t offset, uint64_t count) const;
  /// Whether the table of names has `name` at `offset`.
  bool names(const Elf64_Shdr& table, uint64_t offset, const std::string& name) const;

  std::string path_;
  int fd_ = -1;
  struct stat status_{};
  std::vector<Elf64_Shdr> sections_;
  Elf64_Shdr section_names_{};
};

}  // namespace peft::detail

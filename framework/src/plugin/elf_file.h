#pragma once
// A shared library as a file: what it says about itself, without running anything in it.

#include <elf.h>
#include <sys/stat.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace peft::detail {

/// All that the dynamic loader would map is in the file: touching a page past the end of a cut-off one would kill the
/// process.
class ElfFile {
 public:
  /// Throws PluginError for what is not a regular file of root or the effective user that nobody else may write, or not
  /// a whole shared library of this kind of machine.
  explicit ElfFile(const std::string& path);
  ~ElfFile();
  ElfFile(const ElfFile&) = delete;
  ElfFile& operator=(const ElfFile&) = delete;

  /// The bytes of the section of that name, or nothing. Throws PluginError where they are none or more than `most`.
  std::optional<std::string> section(const std::string& name, uint64_t most) const;
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

#include "plugin/plugin_file.h"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "peft/error.h"

// Boost.DLL's library_info would list symbols and sections, but follows whatever offsets a file claims, and finds
// nothing in a stripped library.
namespace peft::detail {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw PluginError(printable(path) + ": " + why);
}

/// Sticky does not excuse: what others put in there would still be found by name.
void check_owner(const std::string& path, const struct stat& status) {
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    refuse(path, "refused, because it belongs to another user (uid " + std::to_string(status.st_uid) + ")");
  if ((status.st_mode & (S_IWGRP | S_IWOTH)) != 0)
    refuse(path, "refused, because others than its owner may write it (chmod go-w)");
}

class File {
 public:
  explicit File(const std::string& path) : path_(path) {
    // O_NONBLOCK: opening a FIFO must not wait for a writer.
    fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd_ < 0) refuse(path, errno == ELOOP ? "refused, because it is a symbolic link" : std::strerror(errno));
    if (::fstat(fd_, &status_) != 0) refuse(path, std::strerror(errno));
    if (!S_ISREG(status_.st_mode)) refuse(path, "refused, because it is not a regular file");
    check_owner(path, status_);
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  bool holds(uint64_t offset, uint64_t size) const {
    const auto all = static_cast<uint64_t>(status_.st_size);
    return offset <= all && size <= all - offset;
  }
  void read(uint64_t offset, void* out, std::size_t size) const {
    if (!holds(offset, size)) refuse(path_, "the file is cut off");
    for (std::size_t done = 0; done < size;) {
      const ssize_t n = ::pread(fd_, static_cast<char*>(out) + done, size - done, static_cast<off_t>(offset + done));
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) refuse(path_, n < 0 ? std::strerror(errno) : "the file is cut off");
      done += static_cast<std::size_t>(n);
    }
  }
  /// A table of `count` structs at `offset`.
  template <class T>
  std::vector<T> read_table(uint64_t offset, std::size_t count) const {
    if (!holds(offset, count * sizeof(T))) refuse(path_, "the file is cut off");
    std::vector<T> table(count);
    read(offset, table.data(), count * sizeof(T));
    return table;
  }

 private:
  std::string path_;
  int fd_ = -1;
  struct stat status_{};
};

#if defined(__x86_64__)
constexpr uint16_t this_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t this_machine = EM_AARCH64;
#else
#error "add this machine's EM_ number"
#endif

Elf64_Ehdr read_header(const File& file, const std::string& path) {
  Elf64_Ehdr header{};
  if (!file.holds(0, sizeof header)) refuse(path, "not a shared library");
  file.read(0, &header, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_type != ET_DYN)
    refuse(path, "not a shared library");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != this_machine)
    refuse(path, "a shared library for another kind of machine");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_shentsize != sizeof(Elf64_Shdr) ||
      header.e_shstrndx >= header.e_shnum)
    refuse(path, "a malformed shared library");
  return header;
}

/// The bytes of the record's section. All that the loader would map must be there too: touching a page past the end of
/// a cut-off file kills the process.
std::string read_section(const File& file, const std::string& path) {
  constexpr char wanted[] = ".peft_plugin";
  constexpr uint64_t most = 4096;
  const Elf64_Ehdr header = read_header(file, path);
  for (const auto& segment : file.read_table<Elf64_Phdr>(header.e_phoff, header.e_phnum))
    if (!file.holds(segment.p_offset, segment.p_filesz)) refuse(path, "the file is cut off");
  const auto sections = file.read_table<Elf64_Shdr>(header.e_shoff, header.e_shnum);
  const Elf64_Shdr& names = sections[header.e_shstrndx];
  for (const Elf64_Shdr& section : sections) {
    char name[sizeof wanted];
    if (section.sh_name > names.sh_size || names.sh_size - section.sh_name < sizeof name) continue;
    if (!file.holds(names.sh_offset, names.sh_size)) refuse(path, "the file is cut off");
    file.read(names.sh_offset + section.sh_name, name, sizeof name);
    if (std::memcmp(name, wanted, sizeof name) != 0) continue;
    if (section.sh_type != SHT_PROGBITS || section.sh_size == 0 || section.sh_size > most)
      refuse(path, "not a peft plugin: its record is malformed");
    std::string bytes(section.sh_size, '\0');
    file.read(section.sh_offset, bytes.data(), bytes.size());
    return bytes;
  }
  refuse(path, "not a peft plugin: it has no record of PEFT_PLUGIN");
}

}  // namespace

void check_trusted_folder(const std::string& folder) {
  struct stat status{};
  if (::stat(folder.c_str(), &status) != 0) refuse(folder, std::strerror(errno));
  if (!S_ISDIR(status.st_mode)) refuse(folder, "refused, because it is not a folder");
  check_owner(folder, status);
}

PluginRecord read_plugin_record(const std::string& path) {
  const File file(path);
  const std::string bytes = read_section(file, path);
  std::vector<std::string> fields(1);
  for (const char c : bytes) {
    if (c == '\0')
      fields.emplace_back();
    else
      fields.back() += c;
  }
  // Four texts, each closed by a zero.
  if (fields.size() != 5 || !fields.back().empty() || fields[0] != "peft plugin 1")
    refuse(path,
           "not a peft plugin that this peft knows: its record is '" + printable(fields[0]) + "', not 'peft plugin 1'");
  return {fields[1], fields[2], fields[3]};
}

}  // namespace peft::detail

#include "plugin/elf_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "files/trusted_path.h"
#include "peft/base/error.h"

// Boost.DLL's library_info lists symbols and sections too, but follows any offset in the file unchecked and finds
// nothing in a stripped library.
namespace peft::detail {

namespace {

#if defined(__x86_64__)
constexpr uint16_t this_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t this_machine = EM_AARCH64;
#else
#error "add this machine's EM_ number"
#endif

}  // namespace

void ElfFile::refuse(const std::string& why) const { throw PluginError(printable_path(path_) + ": " + why); }

ElfFile::ElfFile(const std::string& path) : path_(path) {
  // O_NONBLOCK: opening a FIFO must not wait for a writer.
  fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd_ < 0) refuse(errno == ELOOP ? "refused, because it is a symbolic link" : std::strerror(errno));
  try {
    if (::fstat(fd_, &status_) != 0) refuse(std::strerror(errno));
    if (!S_ISREG(status_.st_mode)) refuse("refused, because it is not a regular file");
    check_owner(path, status_);
    read_headers();
  } catch (const UntrustedPath& error) {
    ::close(fd_);
    throw PluginError(error.what());
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

ElfFile::~ElfFile() { ::close(fd_); }

void ElfFile::read_headers() {
  Elf64_Ehdr header{};
  if (!holds(0, sizeof header)) refuse("not a shared library");
  read(0, &header, sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_type != ET_DYN) refuse("not a shared library");
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB ||
      header.e_machine != this_machine)
    refuse("a shared library for another kind of machine");
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_shentsize != sizeof(Elf64_Shdr) ||
      header.e_shstrndx >= header.e_shnum)
    refuse("a malformed shared library");
  for (const auto& segment : read_table<Elf64_Phdr>(header.e_phoff, header.e_phnum))
    if (!holds(segment.p_offset, segment.p_filesz)) refuse("the file is truncated");
  sections_ = read_table<Elf64_Shdr>(header.e_shoff, header.e_shnum);
  section_names_ = sections_[header.e_shstrndx];
}

bool ElfFile::holds(uint64_t offset, uint64_t size) const {
  const auto all = static_cast<uint64_t>(status_.st_size);
  return offset <= all && size <= all - offset;
}

void ElfFile::read(uint64_t offset, void* out, std::size_t size) const {
  if (!holds(offset, size)) refuse("the file is truncated");
  for (std::size_t done = 0; done < size;) {
    const ssize_t n = ::pread(fd_, static_cast<char*>(out) + done, size - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) refuse(n < 0 ? std::strerror(errno) : "the file is truncated");
    done += static_cast<std::size_t>(n);
  }
}

template <class T>
std::vector<T> ElfFile::read_table(uint64_t offset, uint64_t count) const {
  if (count > static_cast<uint64_t>(status_.st_size) / sizeof(T) || !holds(offset, count * sizeof(T)))
    refuse("the file is truncated");
  std::vector<T> table(count);
  read(offset, table.data(), count * sizeof(T));
  return table;
}

bool ElfFile::names(const Elf64_Shdr& table, uint64_t offset, const std::string& name) const {
  const uint64_t size = name.size() + 1;  // with its terminating zero
  if (offset > table.sh_size || table.sh_size - offset < size) return false;
  if (!holds(table.sh_offset, table.sh_size)) refuse("the file is truncated");
  std::string found(size, '\0');
  read(table.sh_offset + offset, found.data(), size);
  return std::memcmp(found.data(), name.c_str(), size) == 0;
}

std::optional<std::string> ElfFile::section(const std::string& name, uint64_t max_size) const {
  for (const Elf64_Shdr& header : sections_) {
    if (!names(section_names_, header.sh_name, name)) continue;
    if (header.sh_type != SHT_PROGBITS || header.sh_size == 0 || header.sh_size > max_size)
      refuse("its section " + name + " is malformed");
    std::string bytes(header.sh_size, '\0');
    read(header.sh_offset, bytes.data(), bytes.size());
    return bytes;
  }
  return std::nullopt;
}

std::optional<uint64_t> ElfFile::exported_bytes(const std::string& name) const {
  for (const Elf64_Shdr& header : sections_) {
    if (header.sh_type != SHT_DYNSYM) continue;
    if (header.sh_link >= sections_.size()) refuse("a malformed shared library");
    for (const auto& symbol : read_table<Elf64_Sym>(header.sh_offset, header.sh_size / sizeof(Elf64_Sym))) {
      const bool exported = symbol.st_shndx != SHN_UNDEF && ELF64_ST_BIND(symbol.st_info) != STB_LOCAL &&
                            ELF64_ST_TYPE(symbol.st_info) == STT_OBJECT;
      if (exported && names(sections_[header.sh_link], symbol.st_name, name)) return symbol.st_size;
    }
  }
  return std::nullopt;
}

}  // namespace peft::detail

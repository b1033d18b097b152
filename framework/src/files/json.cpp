#include "peft/files/json.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/strict_json.h"
#include "files/atomic_file.h"
#include "files/descriptor.h"
#include "peft/base/error.h"

namespace peft {

namespace {

/// The largest shard index of a published model has 9 MB.
constexpr std::size_t kMaxBytes = std::size_t{64} << 20;

}  // namespace

std::string read_text(const std::string& path, std::size_t limit) {
  const std::string name = printable_path(path);
  const Descriptor file = open_for_reading(path);
  if (file.number < 0) throw InputError(name + ": cannot be opened: " + std::strerror(errno));
  struct stat status{};
  if (::fstat(file.number, &status) != 0) throw InputError(name + ": " + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw InputError(name + ": is not a regular file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > limit)
    throw InputError(name + ": has " + std::to_string(size) + " bytes; the limit for this file is " +
                     std::to_string(limit));
  std::string text(size, '\0');
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::read(file.number, text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw InputError(name + ": cannot be read: " + (got < 0 ? std::strerror(errno) : "it was truncated"));
    done += static_cast<std::size_t>(got);
  }
  return text;
}

nlohmann::json parse_json(const std::string& text, const std::string& name, std::size_t max_depth) {
  try {
    return read_strict_json(text, name, max_depth);
  } catch (const JsonSyntaxError& error) {  // error.what quotes the file, which may be secret or huge
    if (error.number) throw InputError(name + ": contains a number that is out of range");
    const std::size_t at = std::min(text.size(), error.position > 0 ? error.position - 1 : 0);
    const std::size_t newline = at > 0 ? text.rfind('\n', at - 1) : std::string::npos;
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    throw InputError(name + ":" + std::to_string(line) + ":" +
                     std::to_string(newline == std::string::npos ? at + 1 : at - newline) + ": not JSON");
  }
}

nlohmann::json read_json(const std::string& path) {
  return parse_json(read_text(path, kMaxBytes), printable_path(path));
}

void write_file(const std::string& path, const std::string& bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace peft

#include "peft/files/json.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "files/atomic_file.h"
#include "peft/error.h"

namespace peft {

namespace {

constexpr int kMaxDepth = 100;

struct Descriptor {
  int number;
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
};

/// Refuses deep nesting, and an object that says a key twice: which of the two was meant nobody knows.
class Guard {
 public:
  explicit Guard(const std::string& name) : name_(name) {}
  bool operator()(int depth, nlohmann::json::parse_event_t event, nlohmann::json& value) {
    using Event = nlohmann::json::parse_event_t;
    if (depth > kMaxDepth) throw InputError(name_ + ": nested more than " + std::to_string(kMaxDepth) + " deep");
    if (event == Event::object_start) keys_.emplace_back();
    if (event == Event::object_end) keys_.pop_back();
    if (event == Event::key && !keys_.back().insert(value.get<std::string>()).second)
      throw InputError(name_ + ": key '" + printable(value.get<std::string>()) + "' is there twice");
    return true;
  }

 private:
  const std::string& name_;
  std::vector<std::set<std::string>> keys_;
};

}  // namespace

std::string read_text(const std::string& path, std::size_t limit) {
  const std::string name = printable(path, 4096);
  // O_NONBLOCK: opening a named pipe must not wait for a writer
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.number < 0) throw InputError(name + ": cannot be opened: " + std::strerror(errno));
  struct stat status{};
  if (::fstat(file.number, &status) != 0) throw InputError(name + ": " + std::strerror(errno));
  if (!S_ISREG(status.st_mode)) throw InputError(name + ": is not a regular file");
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > limit)
    throw InputError(name + ": has " + std::to_string(size) + " bytes, more than the " + std::to_string(limit) +
                     " that such a file may have");
  std::string text(size, '\0');
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::read(file.number, text.data() + done, size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) throw InputError(name + ": cannot be read: " + (got < 0 ? std::strerror(errno) : "it was cut off"));
    done += static_cast<std::size_t>(got);
  }
  return text;
}

nlohmann::json parse_json(const std::string& text, const std::string& name) {
  try {
    return nlohmann::json::parse(text, Guard(name));
  } catch (const nlohmann::json::parse_error& error) {  // its own text quotes the file, which messages must not
    const std::size_t at = std::min(text.size(), error.byte > 0 ? error.byte - 1 : 0);
    const std::size_t newline = at > 0 ? text.rfind('\n', at - 1) : std::string::npos;
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(at), '\n');
    throw InputError(name + ":" + std::to_string(line) + ":" +
                     std::to_string(newline == std::string::npos ? at + 1 : at - newline) + ": not JSON");
  } catch (const nlohmann::json::out_of_range&) {
    throw InputError(name + ": holds a number that no computer number can hold");
  }
}

nlohmann::json read_json(const std::string& path) { return parse_json(read_text(path), printable(path, 4096)); }

void write_file(const std::string& path, const std::string& bytes) {
  AtomicFile file(path);
  file.write(bytes.data(), bytes.size());
  file.commit();
}

}  // namespace peft

#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <string>

namespace peft {

/// An open file, closed with its scope; negative where opening failed.
struct Descriptor {
  explicit Descriptor(int opened) : number(opened) {}
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  const int number;
};

inline Descriptor open_for_reading(const std::string& path) {
  // O_NONBLOCK: opening a named pipe must not wait for a writer
  return Descriptor(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
}

}  // namespace peft

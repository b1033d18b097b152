#include "standard_output.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iostream>
#include <streambuf>

#include "stop_on_signal.h"

namespace {

/// Whether the descriptor takes bytes, or reports an error, within the time.
bool is_writable(int descriptor, int milliseconds) {
  pollfd state{descriptor, POLLOUT, 0};
  const int ready = ::poll(&state, 1, milliseconds);
  return ready > 0 || (ready < 0 && errno != EINTR);
}

/// Waits until the descriptor takes bytes or reports an error. Returns false if a stop is requested meanwhile.
bool wait_until_writable(int descriptor) {
  constexpr int milliseconds = 100;  // also the time that a slow reader has once a stop is requested
  while (!is_writable(descriptor, milliseconds))
    if (stop_requested()) return false;
  return true;
}

/// Writes to a descriptor, never more at once than a pipe that poll() reports as writable takes without blocking.
class DescriptorBuffer : public std::streambuf {
 public:
  explicit DescriptorBuffer(int descriptor) : descriptor_(descriptor) { clear(); }

 protected:
  int_type overflow(int_type next) override {
    if (!write_all()) return traits_type::eof();
    if (!traits_type::eq_int_type(next, traits_type::eof())) sputc(traits_type::to_char_type(next));
    return traits_type::not_eof(next);
  }
  int sync() override { return write_all() ? 0 : -1; }

 private:
  void clear() { setp(text_.data(), text_.data() + text_.size()); }
  bool write_all() {
    const char* next = pbase();
    while (next != pptr()) {
      if (!wait_until_writable(descriptor_)) break;
      const ssize_t written = ::write(descriptor_, next, static_cast<std::size_t>(pptr() - next));
      if (written < 0 && errno != EINTR && errno != EAGAIN) break;
      next += std::max<ssize_t>(written, 0);
    }
    const bool complete = next == pptr();
    clear();
    return complete;
  }
  int descriptor_;
  std::array<char, 4096> text_{};  // PIPE_BUF
};

}  // namespace

void print_in_handler(const char* text) {
  if (!is_writable(STDERR_FILENO, 0)) return;
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, std::strlen(text));
}

void let_signals_interrupt_output() {
  // Never destroyed: the streams are flushed when the process ends.
  std::cout.rdbuf(new DescriptorBuffer(STDOUT_FILENO));
  std::cerr.rdbuf(new DescriptorBuffer(STDERR_FILENO));
}

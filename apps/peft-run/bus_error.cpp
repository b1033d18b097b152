#include "bus_error.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "peft/base/error.h"
#include "peft/files/mapped_path.h"

namespace {

void print(const char* text) {
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, std::strlen(text));
}

void on_bus_error(int number, siginfo_t* info, void*) {
  const char* path = peft::mapped_path(info->si_addr);
  if (path == nullptr) {  // not a mapped file: as if there were no handler
    ::signal(number, SIG_DFL);
    ::raise(number);
    return;
  }
  static std::atomic_flag is_ending;
  if (is_ending.test_and_set())
    for (;;) ::pause();  // until the first thread has ended the process
  print("peft-run: ");
  print(path);
  print(" was truncated while in use, or can no longer be read\n");
  ::_exit(static_cast<int>(peft::ErrorKind::input));
}

}  // namespace

void watch_mapped_files() {
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

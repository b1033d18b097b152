#include "bus_error.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "peft/base/error.h"
#include "peft/files/mapped_path.h"

namespace {

void tell(const char* text) {
  const ssize_t told = ::write(STDERR_FILENO, text, std::strlen(text));
  static_cast<void>(told);
}

void end(int number, siginfo_t* info, void*) {
  const char* path = peft::mapped_path(info->si_addr);
  if (path == nullptr) {  // none of ours: as if nobody had watched
    ::signal(number, SIG_DFL);
    ::raise(number);
    return;
  }
  static std::atomic_flag told;
  if (told.test_and_set())
    for (;;) ::pause();  // until the thread that came first has ended the process
  tell("peft-run: ");
  tell(path);
  tell(" was cut off while it was in use, or cannot be read any more\n");
  ::_exit(static_cast<int>(peft::ErrorKind::input));
}

}  // namespace

void watch_mapped_files() {
  struct sigaction action{};
  action.sa_sigaction = end;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

#include "bus_error.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

#include "peft/base/error.h"
#include "peft/files/mapped_path.h"
#include "plugin_faults.h"
#include "standard_output.h"

namespace {

void on_bus_error(int number, siginfo_t* info, void*) {
  const char* path = peft::mapped_path(info->si_addr);
  if (path == nullptr) return end_by_signal(number);  // not a mapped file
  static std::atomic_flag is_ending;
  if (is_ending.test_and_set())
    for (;;) ::pause();  // until the first thread has ended the process
  for (const char* text : {"peft-run: ", path, " was truncated while in use, or can no longer be read\n"})
    print_in_handler(text);
  end_process(static_cast<int>(peft::ErrorKind::input));
}

}  // namespace

void watch_mapped_files() {
  struct sigaction action{};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, nullptr);
}

#include "signals.h"

#include <csignal>
#include <cstring>
#include <unistd.h>

namespace {

volatile std::sig_atomic_t running = 0, came = 0;

void take(int signal) {
  if (running == 0) {
    const char text[] = "peft-run: stopped before the first step; there was nothing to save\n";
    const ssize_t told = ::write(STDERR_FILENO, text, sizeof text - 1);
    static_cast<void>(told);
    ::_exit(stopped_by_signal);
  }
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  if (came != 0) std::raise(signal);  // both came at once, before this was the first one's work
  came = signal;
}

void handle(void (*by)(int)) {
  struct sigaction action{};
  action.sa_handler = by;
  action.sa_flags = SA_RESTART;  // a write that is under way goes on
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

Signals::Signals() {
  running = 0;
  came = 0;
  std::signal(SIGPIPE, SIG_IGN);  // who reads along may be gone before what is left is saved
  handle(take);
}
void Signals::begin() { running = 1; }
bool Signals::asked() const { return came != 0; }
const char* Signals::name() const { return came == SIGINT ? "SIGINT" : "SIGTERM"; }

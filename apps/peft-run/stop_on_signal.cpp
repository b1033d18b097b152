#include "stop_on_signal.h"

#include <unistd.h>

#include <csignal>
#include <cstring>

namespace {

volatile std::sig_atomic_t run_has_begun = 0, received = 0;

void on_signal(int signal) {
  if (run_has_begun == 0) {
    const char text[] = "peft-run: stopped before the first step; there was nothing to save\n";
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, text, sizeof text - 1);
    ::_exit(stopped_by_signal);
  }
  std::signal(SIGINT, SIG_DFL);
  std::signal(SIGTERM, SIG_DFL);
  if (received != 0) std::raise(signal);  // both arrived before the first one was handled
  received = signal;
}

void install_handler() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // system calls in progress continue
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
}

}  // namespace

StopOnSignal::StopOnSignal() {
  run_has_begun = 0;
  received = 0;
  std::signal(SIGPIPE, SIG_IGN);  // the reader of the output may end before the run is saved
  install_handler();
}
const char* StopOnSignal::name() const { return received == SIGINT ? "SIGINT" : "SIGTERM"; }
void StopOnSignal::on_run_begin(const peft::RunStart&) { run_has_begun = 1; }
void StopOnSignal::on_step_end(const peft::StepReport&, peft::TrainingControl& control) {
  if (received != 0) control.should_stop = true;
}
void StopOnSignal::on_nonfinite_step(const peft::NonFiniteStep&, peft::TrainingControl& control) {
  if (received != 0) control.should_stop = true;
}
void StopOnSignal::on_evaluate(const peft::EvalReport&, peft::TrainingControl& control) {
  if (received != 0) control.should_stop = true;
}

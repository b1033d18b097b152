#include "stop_on_signal.h"

#include <csignal>

#include "plugin_faults.h"
#include "standard_output.h"

namespace {

/// A signal that stops a run.
struct StopSignal {
  int number;
  const char* name;
  bool from_hand;  ///< sent by people: handled even if ignored, and a second one ends the process at once
};

// Batch systems send SIGTERM, SIGUSR1, SIGUSR2 and SIGXCPU, some of them several times; a closed terminal sends SIGHUP,
// often twice.
constexpr StopSignal kStopSignals[] = {{SIGTERM, "SIGTERM", true},  {SIGINT, "SIGINT", true},
                                       {SIGHUP, "SIGHUP", false},   {SIGUSR1, "SIGUSR1", false},
                                       {SIGUSR2, "SIGUSR2", false}, {SIGXCPU, "SIGXCPU", false}};

volatile std::sig_atomic_t run_has_begun = 0, received = 0, received_from_hand = 0;

bool is_from_hand(int number) {
  for (const StopSignal& stop : kStopSignals)
    if (stop.number == number) return stop.from_hand;
  return false;
}

void on_signal(int number) {
  if (run_has_begun == 0) {
    print_in_handler("peft-run: stopped before the first step; there was nothing to save\n");
    end_process(stopped_by_signal);
  }
  if (received == 0) received = number;
  if (!is_from_hand(number)) return;
  for (const StopSignal& stop : kStopSignals)
    if (stop.from_hand) std::signal(stop.number, SIG_DFL);
  if (received_from_hand != 0) std::raise(number);  // both arrived before the first one was handled
  received_from_hand = 1;
}

bool is_ignored(int number) {
  struct sigaction action{};
  return ::sigaction(number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

void install_handlers() {
  struct sigaction action{};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;  // system calls in progress continue
  sigemptyset(&action.sa_mask);
  for (const StopSignal& stop : kStopSignals)
    if (stop.from_hand || !is_ignored(stop.number)) ::sigaction(stop.number, &action, nullptr);
}

}  // namespace

bool stop_requested() { return received != 0; }

StopOnSignal::StopOnSignal() {
  run_has_begun = 0;
  received = 0;
  received_from_hand = 0;
  std::signal(SIGPIPE, SIG_IGN);  // the reader of the output may end before the run is saved
  install_handlers();
}
const char* StopOnSignal::name() const {
  for (const StopSignal& stop : kStopSignals)
    if (stop.number == received) return stop.name;
  return "no signal";
}
void StopOnSignal::on_run_begin(const peft::RunStart&) { run_has_begun = 1; }
void StopOnSignal::on_step_end(const peft::StepReport&, peft::TrainingControl& control) {
  if (stop_requested()) control.should_stop = true;
}
void StopOnSignal::on_nonfinite_step(const peft::NonFiniteStep&, peft::TrainingControl& control) {
  if (stop_requested()) control.should_stop = true;
}
void StopOnSignal::on_evaluate(const peft::EvalReport&, peft::TrainingControl& control) {
  if (stop_requested()) control.should_stop = true;
}

#include "plugin_faults.h"

#include <dlfcn.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "peft/base/error.h"
#include "peft/plugin/active_plugin.h"
#include "standard_output.h"

namespace {

constexpr int plugin_error = static_cast<int>(peft::ErrorKind::plugin);

/// The stack of a handler, since a plugin's endless recursion leaves none.
constexpr std::size_t kStackBytes = std::size_t{1} << 18;
alignas(std::max_align_t) std::byte handler_stack[kStackBytes];

[[noreturn]] void name_and_end(const char* plugin, const char* what, const char* detail) {
  static std::atomic_flag is_ending;
  if (is_ending.test_and_set())
    for (;;) ::pause();  // until the first thread has ended the process
  for (const char* text : {plugin, ": ", what, detail, "\n"}) print_in_handler(text);
  end_process(plugin_error);
}

void on_exit_call() {
  if (const char* plugin = peft::active_plugin()) name_and_end(plugin, "ended the process", "");
}

void handle(int number) {
  struct sigaction action{};
  if (::sigaction(number, nullptr, &action) != 0 || action.sa_handler != SIG_DFL) return;  // a sanitizer's
  action.sa_handler = end_by_signal;
  action.sa_flags = SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  ::sigaction(number, &action, nullptr);
}

}  // namespace

void end_process(int code) {
  for (;;) ::syscall(SYS_exit_group, code);
}

void end_by_signal(int number) {
  if (const char* plugin = peft::active_plugin()) name_and_end(plugin, "crashed with SIG", ::sigabbrev_np(number));
  ::signal(number, SIG_DFL);
  ::raise(number);
}

void name_plugins_that_end_the_process() {
  peft::active_plugin();  // loads what a handler cannot load
  const stack_t stack{.ss_sp = handler_stack, .ss_flags = 0, .ss_size = kStackBytes};
  ::sigaltstack(&stack, nullptr);
  for (const int number : {SIGSEGV, SIGABRT, SIGFPE, SIGILL, SIGTRAP}) handle(number);
  std::atexit(on_exit_call);
  std::at_quick_exit(on_exit_call);
}

void name_plugin_on_immediate_exit(const void* caller) {
  Dl_info from{}, core{};
  const bool is_core = ::dladdr(caller, &from) != 0 &&
                       ::dladdr(reinterpret_cast<const void*>(&peft::active_plugin), &core) != 0 &&
                       from.dli_fbase == core.dli_fbase;
  if (!is_core) on_exit_call();
}

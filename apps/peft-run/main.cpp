#include <torch/types.h>

#include <algorithm>
#include <csignal>
#include <exception>
#include <iostream>
#include <new>
#include <system_error>

#include "arguments.h"
#include "bus_error.h"
#include "commands.h"
#include "peft/base/error.h"
#include "peft/base/export.h"
#include "peft/plugin/active_plugin.h"
#include "peft/runtime/memory.h"
#include "plugin_faults.h"
#include "standard_output.h"

namespace {

constexpr int internal_error = 1;
constexpr int usage_error = static_cast<int>(peft::ErrorKind::config);
constexpr int plugin_error = static_cast<int>(peft::ErrorKind::plugin);
constexpr int resource_error = static_cast<int>(peft::ErrorKind::resource);

/// A failed check of libtorch or of libpeft is a bug: invalid input must be refused with a message before it.
int report_internal(const std::string& what) {
  std::cerr << "peft-run: internal error: " << what << "\n"
            << "This is a bug. Please report it with the experiment and this message.\n";
  return internal_error;
}

int report_out_of_memory(const char* what) {
  std::cerr << "peft-run: not enough memory during " << peft::name(peft::memory_phase()) << what << "\n";
  return resource_error;
}

/// Prints the exception being handled and returns its exit code.
int report() {
  try {
    throw;
  } catch (const UsageError& error) {
    std::cerr << "peft-run: " << error.what() << "\n";
    return usage_error;
  } catch (const peft::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.kind());
  } catch (const c10::OutOfMemoryError& error) {
    std::cerr << "peft-run: " << error.what_without_backtrace() << "\n";
    return resource_error;
  } catch (const std::bad_alloc&) {
    return report_out_of_memory("");
  } catch (const std::system_error& error) {
    const bool is_shortage =
        error.code() == std::errc::resource_unavailable_try_again || error.code() == std::errc::not_enough_memory;
    return is_shortage ? report_out_of_memory(" or threads") : report_internal(error.what());
  } catch (const c10::Error& error) {
    return report_internal(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return report_internal(error.what());
  } catch (...) {  // only a plugin can throw such a thing
    std::cerr << "peft-run: a plugin threw something that is not a std::exception\n";
    return plugin_error;
  }
}

thread_local bool out_of_memory = false;

/// The handler of operator new.
void note_out_of_memory() {
  out_of_memory = true;
  throw std::bad_alloc();
}

/// Prints the exception being handled, which ended a thread or a destructor of the plugin, and returns its exit code.
int report_termination_of(const char* plugin) {
  std::string text = "something that is not a std::exception";
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return report();
  } catch (const c10::OutOfMemoryError&) {
    return report();
  } catch (const c10::Error& error) {
    text = error.what_without_backtrace();
  } catch (const std::exception& error) {
    text = error.what();
  } catch (...) {
  }
  std::cerr << plugin
            << ": an exception left a thread, or a function that must not throw: " << peft::printable(text, 1000)
            << "\n";
  return plugin_error;
}

int report_termination() {
  const char* plugin = peft::active_plugin();
  if (std::current_exception()) return plugin != nullptr ? report_termination_of(plugin) : report();
  if (out_of_memory) return report_out_of_memory("");
  if (plugin == nullptr) return report_internal("no exception was thrown");
  std::cerr << plugin << ": ended the process by std::terminate\n";
  return plugin_error;
}

/// The terminate handler: also an exception that cannot leave a thread ends with its message and exit code. If it comes
/// from a destructor of libtorch's, it is not the current exception here.
[[noreturn]] void end() { end_process(report_termination()); }

}  // namespace

/// Called by the launcher, which calls `*on_immediate_exit` with the caller of _exit().
extern "C" PEFT_API int peft_cli_main(int argc, char** argv, void (**on_immediate_exit)(const void*)) {
  let_signals_interrupt_output();
  std::signal(SIGXFSZ, SIG_IGN);  // a write beyond the limit of a file's size then fails with a reason
  name_plugins_that_end_the_process();
  *on_immediate_exit = name_plugin_on_immediate_exit;
  std::set_terminate(end);
  std::set_new_handler(note_out_of_memory);
  watch_mapped_files();
  try {
    const Outcome outcome = run_command({argv + std::min(argc, 1), argv + argc});
    if (std::cout.flush() || outcome.code != 0) return outcome.code;
    std::cerr << "peft-run: the output cannot be written\n";
    return outcome.needs_output ? resource_error : 0;
  } catch (...) {
    return report();
  }
}

#include <torch/types.h>

#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <system_error>

#include "bus_error.h"
#include "command_line.h"
#include "peft/base/error.h"
#include "peft/runtime/memory.h"

namespace {

constexpr int done = 0, internal_error = 1;
constexpr int usage_error = static_cast<int>(peft::ErrorKind::config);
constexpr int plugin_error = static_cast<int>(peft::ErrorKind::plugin);
constexpr int resource_error = static_cast<int>(peft::ErrorKind::resource);

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

int run(const Command& command) {
  return std::visit(Overloaded{
                        [](const Information& information) {
                          std::cout << information.text;
                          return done;
                        },
                        [](const TrainArguments& arguments) { return train_command(arguments); },
                        [](const PlanArguments& arguments) { return plan_command(arguments); },
                        [](const ListArguments& arguments) { return list_command(arguments); },
                        [](const DescribeArguments& arguments) { return describe_command(arguments); },
                        [](const GenerateArguments& arguments) { return generate_command(arguments); },
                        [](const EvalArguments& arguments) { return eval_command(arguments); },
                        [](const MergeArguments& arguments) { return merge_command(arguments); },
                        [](const ExportArguments& arguments) { return export_command(arguments); },
                        [](const SelfcheckArguments& arguments) { return selfcheck_command(arguments); },
                    },
                    command);
}

/// A failed check of libtorch or of our own is our fault: whatever the user gave should have been refused before.
int report_internal(const std::string& what) {
  std::cerr << "peft-run: internal error: " << what << "\n"
            << "This should not have happened. Please report it with the experiment and this message.\n";
  return internal_error;
}

int report_missing_memory(const char* what) {
  std::cerr << "peft-run: not enough memory during " << peft::name(peft::memory_phase()) << what << "\n";
  return resource_error;
}

/// Tells the exception being handled.
int report() {
  try {
    throw;
  } catch (const UsageError& error) {
    std::cerr << "peft-run: " << error.what() << "\n" << error.usage;
    return usage_error;
  } catch (const peft::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.kind());
  } catch (const c10::OutOfMemoryError& error) {
    std::cerr << "peft-run: " << error.what_without_backtrace() << "\n";
    return resource_error;
  } catch (const std::bad_alloc&) {
    return report_missing_memory("");
  } catch (const std::system_error& error) {
    const bool short_of =
        error.code() == std::errc::resource_unavailable_try_again || error.code() == std::errc::not_enough_memory;
    return short_of ? report_missing_memory(" or threads") : report_internal(error.what());
  } catch (const c10::Error& error) {
    return report_internal(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return report_internal(error.what());
  } catch (...) {  // nothing of ours throws such a thing
    std::cerr << "peft-run: a plugin threw something that is no std::exception\n";
    return plugin_error;
  }
}

thread_local bool memory_was_missing = false;

/// operator new found none.
void note_missing_memory() {
  memory_was_missing = true;
  throw std::bad_alloc();
}

/// Where an exception cannot pass, as out of a thread: it shall still end with its message and exit code. From a
/// destructor of libtorch's it comes here without being the current one.
[[noreturn]] void end() {
  if (std::current_exception()) std::_Exit(report());
  std::_Exit(memory_was_missing ? report_missing_memory("") : report_internal("no exception was thrown"));
}

}  // namespace

int main(int argc, char** argv) {
  std::set_terminate(end);
  std::set_new_handler(note_missing_memory);
  watch_mapped_files();
  try {
    const Command command = parse_command_line(argc, argv);
    const int code = run(command);
    if (std::cout.flush() || code != 0) return code;
    std::cerr << "peft-run: the output cannot be written\n";
    // What a run made is in its folder, whoever read along.
    return std::holds_alternative<TrainArguments>(command) ? done : resource_error;
  } catch (...) {
    return report();
  }
}

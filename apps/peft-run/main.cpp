#include <torch/types.h>

#include <iostream>
#include <new>

#include "command_line.h"
#include "peft/error.h"

namespace {

constexpr int done = 0, internal_error = 1;
constexpr int usage_error = static_cast<int>(peft::ErrorKind::config);
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

}  // namespace

int main(int argc, char** argv) {
  try {
    const int code = run(parse_command_line(argc, argv));
    if (std::cout.flush()) return code;
    std::cerr << "peft-run: the output cannot be written\n";
    return resource_error;
  } catch (const UsageError& error) {
    std::cerr << "peft-run: " << error.what() << "\n" << error.usage;
    return usage_error;
  } catch (const peft::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.kind());
  } catch (const c10::OutOfMemoryError& error) {
    std::cerr << "peft-run: not enough memory: " << error.what_without_backtrace() << "\n";
    return resource_error;
  } catch (const std::bad_alloc&) {
    std::cerr << "peft-run: not enough memory\n";
    return resource_error;
  } catch (const c10::Error& error) {
    return report_internal(error.what_without_backtrace());
  } catch (const std::exception& error) {
    return report_internal(error.what());
  }
}

#pragma once

#include <stdexcept>
#include <string>
#include <variant>

#include "commands.h"

/// Text to print, and nothing else to do: --help, --version.
struct Information {
  std::string text;
};

using Command = std::variant<Information, TrainArguments, PlanArguments, ListArguments, DescribeArguments,
                             GenerateArguments, EvalArguments, MergeArguments, ExportArguments, SelfcheckArguments>;

/// The command line cannot be understood; `usage` belongs to the command that was meant.
struct UsageError : std::runtime_error {
  UsageError(const std::string& message, std::string usage_text)
      : std::runtime_error(message), usage(std::move(usage_text)) {}
  std::string usage;
};

/// Throws UsageError.
Command parse_command_line(int argc, const char* const* argv);

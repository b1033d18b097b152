#pragma once

#include <string>
#include <vector>

#include "peft/options/options.h"

/// How a command ended. Errors are thrown; main() prints them.
struct Outcome {
  int code = 0;              ///< of the process
  bool needs_output = true;  ///< false: the results are on disk, so that output which cannot be written is not an error
};

/// A command of peft-run. It gets the words after its name.
struct Command {
  const char* name;
  const char* arguments;  ///< as the overview shows them
  const char* help;       ///< one line
  Outcome (*run)(const peft::StringList& words);
};
/// All of commands.def.
const std::vector<Command>& commands();

/// What peft-run does if the first word is not a command: it trains an experiment.
Outcome train_command(const peft::StringList& words);

/// The help of peft-run itself.
std::string overview();

/// Finds the command and runs it. Throws UsageError.
Outcome run_command(const peft::StringList& words);

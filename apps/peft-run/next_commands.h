#pragma once

#include <string>

#include "peft/options/options.h"

/// What is needed to use the adapters of a run.
struct NextCommands {
  std::string model;              ///< path of the base
  peft::StringList adapters;      ///< folders, the outermost first
  std::string data;               ///< file to evaluate on
  std::string precision;          ///< of the run
  peft::StringList plugin_paths;  ///< of the run's experiment
  bool can_merge = false;
};

/// Prints the commands that generate, evaluate, merge and export, for a shell in the working directory.
void print_next_commands(const NextCommands& next);

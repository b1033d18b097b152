#include "commands.h"

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "arguments.h"
#include "peft/base/error.h"
#include "peft/plugin/abi.h"

#define COMMAND(name, arguments, help) Outcome name##_command(const peft::StringList& words);
#include "commands.def"
#undef COMMAND

const std::vector<Command>& commands() {
#define COMMAND(name, arguments, help) {#name, arguments, help, name##_command},
  static const std::vector<Command> all = {
#include "commands.def"
  };
#undef COMMAND
  return all;
}

std::string overview() {
  constexpr std::size_t width = 46;  // of a line before its help
  std::string text = "usage: ";
  const auto row = [&](std::string line, const std::string& help) {
    line.resize(std::max(line.size() + 2, width), ' ');
    text += (text.ends_with('\n') ? "       " : "") + ("peft-run " + line) + help + "\n";
  };
  row("EXPERIMENT.toml [--with FILE] [--set ...]", "train; --resume resumes from the newest checkpoint");
  for (const Command& command : commands())
    row(std::string(command.name) + (*command.arguments == '\0' ? "" : " ") + command.arguments, command.help);
  return text +
         "'peft-run COMMAND --help' shows a command's options; for an experiment named like a command write ./list\n";
}

Outcome run_command(const peft::StringList& words) {
  if (words.empty()) throw UsageError("no experiment and no command given", "peft-run --help");
  const std::string& first = words.front();
  if (first == "--help" || first == "-h" || first == "help") {
    std::cout << overview();
    return {};
  }
  if (first == "--version") {
    std::cout << "peft-run " PEFT_VERSION " (" PEFT_ABI ")\n";
    return {};
  }
  for (const Command& command : commands())
    if (first == command.name) return command.run({words.begin() + 1, words.end()});
  // Otherwise a mistyped command would be reported as a missing file.
  if (first.find_first_of("./-") == std::string::npos && !std::filesystem::exists(first)) {
    peft::StringList names;
    for (const Command& command : commands()) names.emplace_back(command.name);
    const std::string nearest = peft::nearest(first, names);
    throw UsageError(
        "no command '" + peft::printable(first) + "'" + (nearest.empty() ? "" : "; did you mean '" + nearest + "'?"),
        "peft-run --help");
  }
  return train_command(words);
}

#include "next_commands.h"

#include <cerrno>
#include <iostream>

#include "arguments.h"
#include "peft/base/error.h"

namespace {

/// As one word of a shell's command line.
std::string quoted(const std::string& word) {
  constexpr auto plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./+,:=@%-";
  if (!word.empty() && word.find_first_not_of(plain) == std::string::npos) return word;
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? "'\\''" : std::string(1, c);
  return text + "'";
}

std::string option(const char* name, const std::string& path) {
  return std::string(" --") + name + " " + quoted(peft::printable_path(path));
}

}  // namespace

void print_next_commands(const NextCommands& next) {
  const std::string program = "  " + quoted(program_invocation_name) + " ";
  std::string from = option("model", next.model), plugins, device;
  for (const std::string& adapter : next.adapters) from += option("adapter", adapter);
  for (const std::string& folder : next.plugin_paths) plugins += option("plugin-path", folder);
  if (next.precision != DeviceArguments().precision) device = " --precision " + quoted(next.precision);
  const std::string together = next.adapters.size() > 1 ? " --together" : "";
  const std::string output = next.adapters.front();
  std::cout << "next:\n"
            << program << "generate" << from << device << plugins << " --prompt \"Who are you?\"\n"
            << program << "eval" << from << together << option("data", next.data) << device << plugins << "\n";
  if (next.can_merge)
    std::cout << program << "merge" << from << plugins << option("output", output + "-merged") << "\n"
              << program << "export" << from << plugins << " --as gguf" << option("output", output + "-gguf") << "\n";
}

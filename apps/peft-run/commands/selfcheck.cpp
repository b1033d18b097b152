#include "peft/selfcheck/selfcheck.h"

#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "peft/base/error.h"

Outcome selfcheck_command(const peft::StringList& words) {
  using namespace peft;
  std::string what;
  StringList sets, plugin_paths;
  Arguments arguments("selfcheck KIND/NAME [--set KEY=VALUE]... [--plugin-path DIR]...");
  arguments.option("set", sets, "KEY=VALUE", "an option of the plugin, in TOML; may be repeated");
  arguments.plugin_path(plugin_paths);
  arguments.positional(what);
  if (!arguments.parse(words)) return {};
  arguments.require(!what.empty(), "no plugin given");

  const std::size_t slash = what.find('/');
  if (slash == std::string::npos)
    throw ConfigError("'" + printable(what) + "' is not KIND/NAME, such as adapter/lora or optimizer/adamw");
  Plugins plugins(Plugins::search_path(plugin_paths));
  std::string options;
  for (const std::string& line : sets) options += line + "\n";
  bool all_passed = true;
  for (const CheckResult& check : selfcheck(plugins, what.substr(0, slash), what.substr(slash + 1), options)) {
    std::cout << (check.passed ? "ok      " : "BROKEN  ") << check.name << ": " << printable(check.detail, 2000)
              << "\n";
    all_passed &= check.passed;
  }
  if (!all_passed) throw PluginError(printable(what) + " fails a check that every plugin of its kind must pass");
  return {};
}

#include "peft/selfcheck/selfcheck.h"

#include <iostream>

#include "commands.h"
#include "peft/base/error.h"

int selfcheck_command(const SelfcheckArguments& arguments) {
  using namespace peft;
  const std::string kind = "adapter/";
  if (!arguments.what.starts_with(kind))
    throw ConfigError("'" + printable(arguments.what) + "' cannot be checked: write adapter/NAME");
  Plugins plugins(Plugins::search_path(arguments.plugin_paths));
  std::string options;
  for (const std::string& line : arguments.options) options += line + "\n";
  bool all = true;
  for (const CheckResult& finding : selfcheck_adapter(plugins, arguments.what.substr(kind.size()), options)) {
    std::cout << (finding.kept ? "ok      " : "BROKEN  ") << finding.promise << ": " << printable(finding.detail, 2000)
              << "\n";
    all &= finding.kept;
  }
  if (!all) throw PluginError(printable(arguments.what) + " does not keep every promise of an adapter");
  return 0;
}

#include "peft/merge.h"

#include <torch/torch.h>

#include <cstdio>
#include <iostream>
#include <map>

#include "commands.h"
#include "peft/error.h"
#include "peft/memory.h"
#include "screen.h"

namespace {

using namespace peft;

constexpr double kTooMuch = 0.1;  // of the adapter's change, lost by rounding

uint64_t bytes_of(const std::string& text) {
  std::size_t used = 0;
  double number = 0;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
  }
  const std::map<std::string, double> units = {{"", 1}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}};
  const auto unit = units.find(text.substr(used));
  if (!(number > 0) || number > 1e9 || unit == units.end())
    throw ConfigError("--max-shard-size: '" + printable(text) + "' is no size; write 500MB or 5GB");
  return static_cast<uint64_t>(number * unit->second);
}

/// A line for all modules of one name: how many weights the rounding left as they were, and what it cost.
void print_receipt(const MergeReceipt& receipt) {
  struct Row {
    int64_t modules = 0, weights = 0, unchanged = 0;
    double worst = 0;
    std::string where;
  };
  std::map<std::string, Row> rows;
  for (const MergedModule& module : receipt.modules) {
    Row& row = rows[module.path.substr(module.path.rfind('.') + 1)];
    ++row.modules;
    row.weights += module.weights;
    row.unchanged += module.unchanged;
    if (module.error >= row.worst) row.worst = module.error, row.where = module.path;
  }
  std::cout << "merged in " << receipt.dtype << ":\n  modules    unchanged  error (largest)\n";
  for (const auto& [name, row] : rows) {
    char text[96];
    std::snprintf(text, sizeof text, "%9lld   %8.2f %%      %.2e  ", static_cast<long long>(row.modules),
                  100.0 * static_cast<double>(row.unchanged) / static_cast<double>(std::max<int64_t>(row.weights, 1)),
                  row.worst);
    std::cout << text << name << "  (" << row.where << ")\n";
  }
  for (const auto& [name, row] : rows)
    if (row.worst > kTooMuch)
      std::cerr << "warning: rounding to " << receipt.dtype << " loses " << static_cast<int>(100 * row.worst)
                << " % of the adapter's change in " << row.where << "; --dtype float32 keeps it\n";
}

}  // namespace

int merge_command(const MergeArguments& arguments) {
  install_cpu_allocator();
  Plugins plugins(Plugins::search_path(arguments.plugin_paths));
  const MergeOptions options{.model = arguments.model,
                             .adapters = arguments.adapters,
                             .output = arguments.output,
                             .any_base = arguments.any_base,
                             .dtype = arguments.dtype,
                             .max_shard_size = bytes_of(arguments.max_shard_size)};
  const MergeReceipt receipt = merge(options, plugins);
  print_receipt(receipt);
  std::cout << "written: " << printable(arguments.output, 4096) << " (" << receipt.files.size()
            << (receipt.files.size() == 1 ? " file" : " files") << " of weights; merge_receipt.json tells each module)"
            << std::endl;
  return 0;
}

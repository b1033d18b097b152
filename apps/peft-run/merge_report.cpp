#include "merge_report.h"

#include <cstdio>
#include <iostream>
#include <map>

#include "peft/base/error.h"

namespace {

constexpr double kLargeError = 0.1;  // share of the adapter's change that is lost by rounding

}  // namespace

void print_merge_report(const peft::MergeReport& report, const std::string& wider) {
  struct Row {
    int64_t modules = 0, weights = 0, unchanged = 0;
    double worst = 0;
    std::string where;
  };
  std::map<std::string, Row> rows;
  for (const peft::MergedModule& module : report.modules) {
    Row& row = rows[module.path.substr(module.path.rfind('.') + 1)];
    ++row.modules;
    row.weights += module.weights;
    row.unchanged += module.unchanged;
    if (module.error < row.worst) continue;
    row.worst = module.error;
    row.where = module.path;
  }
  std::cout << "merged in " << report.dtype << ":\n  modules    unchanged  error (largest)\n";
  for (const auto& [name, row] : rows) {
    char text[96];
    std::snprintf(text, sizeof text, "%9lld   %8.2f %%      %.2e  ", static_cast<long long>(row.modules),
                  100.0 * static_cast<double>(row.unchanged) / static_cast<double>(std::max<int64_t>(row.weights, 1)),
                  row.worst);
    std::cout << text << name << "  (" << row.where << ")\n";
  }
  for (const auto& [name, row] : rows)
    if (row.worst > kLargeError)
      std::cerr << "warning: rounding to " << report.dtype << " loses " << static_cast<int>(100 * row.worst)
                << " % of the adapter's change in " << row.where << "; " << wider << " avoids this\n";
}

void warn_unknown_bases(const peft::StringList& folders) {
  for (const std::string& folder : folders)
    std::cerr << "note: " << peft::printable_path(folder)
              << " does not say which base it was trained on; its names and shapes fit this one\n";
}

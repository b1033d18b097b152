#include "merge_report.h"

#include <cstdio>
#include <iostream>
#include <map>

#include "peft/base/error.h"

namespace {

constexpr double kLargeError = 0.1;  // share of the adapter's change that is lost by rounding

/// " (61 of 272 tensors in float32)" if the tensors have several dtypes, else "".
std::string other_dtypes(const peft::MergeReport& report) {
  int64_t all = 0;
  std::string others;
  for (const auto& [dtype, tensors] : report.dtypes) {
    all += tensors;
    if (dtype != report.dtype && report.dtypes.size() > 1)
      others += (others.empty() ? "" : ", ") + std::to_string(tensors) + " in " + dtype;
  }
  return others.empty() ? "" : " (of " + std::to_string(all) + " tensors, " + others + ")";
}

/// An error above 1 means that rounding changed the weights by more than the adapter does.
void warn_of_lost_changes(const peft::MergeReport& report, const std::string& wider) {
  const peft::MergedModule* worst = nullptr;
  std::size_t count = 0;
  for (const peft::MergedModule& module : report.modules) {
    if (!(module.error > kLargeError)) continue;
    ++count;
    if (worst == nullptr || module.error > worst->error) worst = &module;
  }
  if (worst == nullptr) return;
  std::cerr << "warning: in " << count << " of " << report.modules.size() << " merged modules, rounding to "
            << worst->dtype;
  if (worst->error >= 1)
    std::cerr << " outweighs the adapter's change, so the merged model may behave like the base";
  else
    std::cerr << " loses up to " << static_cast<int>(100 * worst->error) << " % of the adapter's change";
  std::cerr << " (worst: " << worst->path << "); use " << wider << ", or apply the adapter without merging\n";
}

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
  std::cout << "merged in " << report.dtype << other_dtypes(report) << ":\n  modules    unchanged  error (largest)\n";
  for (const auto& [name, row] : rows) {
    char text[96];
    std::snprintf(text, sizeof text, "%9lld   %8.2f %%      %.2e  ", static_cast<long long>(row.modules),
                  100.0 * static_cast<double>(row.unchanged) / static_cast<double>(std::max<int64_t>(row.weights, 1)),
                  row.worst);
    std::cout << text << name << "  (" << row.where << ")\n";
  }
  warn_of_lost_changes(report, wider);
}

void print_notes(const peft::ReadingNotes& notes) {
  for (const std::string& line : notes.model) std::cerr << "warning: " << line << "\n";
  for (const std::string& line : notes.adapters) std::cerr << "note: " << line << "\n";
}

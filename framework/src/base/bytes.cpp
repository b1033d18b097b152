#include "peft/base/bytes.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <map>

namespace peft {

std::optional<uint64_t> parse_bytes(const std::string& text) {
  static const std::map<std::string, double> units = {{"", 1},     {"B", 1},        {"KB", 1e3},     {"MB", 1e6},
                                                      {"GB", 1e9}, {"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}};
  const std::size_t digits = text.find_first_not_of("0123456789.");
  const std::string number = text.substr(0, digits);
  std::string unit = digits == std::string::npos ? "" : text.substr(digits);
  if (!unit.empty() && unit.front() == ' ') unit.erase(0, 1);
  const auto factor = units.find(unit);
  char* end = nullptr;
  const double value = std::strtod(number.c_str(), &end);
  if (number.empty() || *end != '\0' || factor == units.end()) return std::nullopt;
  const double bytes = value * factor->second;
  if (!(bytes >= 1) || bytes > 0x1p62) return std::nullopt;
  return static_cast<uint64_t>(bytes);
}

std::string format_bytes(uint64_t bytes) {
  const auto value = static_cast<double>(bytes);
  char text[32];
  if (bytes >= uint64_t{1} << 30)
    std::snprintf(text, sizeof text, "%.2f GiB", value / 0x1p30);
  else if (bytes >= uint64_t{1} << 20)
    std::snprintf(text, sizeof text, "%.1f MiB", value / 0x1p20);
  else
    std::snprintf(text, sizeof text, "%.1f KiB", value / 0x1p10);
  return text;
}

}  // namespace peft

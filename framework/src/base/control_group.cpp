#include "base/control_group.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace peft {

namespace fs = std::filesystem;

uint64_t read_number(const std::string& path, const std::string& key) {
  std::ifstream file(path);
  std::string word;
  uint64_t value = 0;
  if (!key.empty()) {
    while (file >> word && word != key) {
    }
  }
  return file >> value ? value : 0;
}

ControlGroups::ControlGroups(const std::string& membership, const std::string& mounted) {
  std::ifstream lines(membership);
  // "4:memory:/a/b" in version 1, "0::/a/b" in version 2
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      add(mounted, path, true);
      add(mounted + "/unified", path, true);
    } else if (controllers.find(",memory,") != std::string::npos) {
      add(mounted + "/memory", path, false);
    }
  }
}

/// The group and all above it. In a container the path may be the host's, of which only the root is to be seen.
void ControlGroups::add(const std::string& root, const std::string& path, bool second) {
  fs::path at = fs::path(path).lexically_normal().relative_path();
  if (path.find("/..") != std::string::npos) at.clear();
  for (;; at = at.parent_path()) {
    const std::string folder = (at.empty() ? fs::path(root) : fs::path(root) / at).string() + "/memory.";
    const Group group = second ? Group{folder + "max", folder + "current", folder + "stat", ""}
                               : Group{folder + "limit_in_bytes", folder + "usage_in_bytes", folder + "stat", "total_"};
    std::error_code error;
    if (fs::exists(group.limit, error)) groups_.push_back(group);
    if (at.empty()) return;
  }
}

uint64_t ControlGroups::available() const {
  uint64_t least = UINT64_MAX;
  for (const Group& group : groups_) {
    const uint64_t limit = read_number(group.limit);
    constexpr uint64_t none = uint64_t{1} << 62;  // version 1 writes a number near 2^63
    if (limit == 0 || limit >= none) continue;    // "max"
    const uint64_t used = read_number(group.usage);
    const uint64_t pages = read_number(group.statistics, group.before + "inactive_file") +
                           read_number(group.statistics, group.before + "active_file");
    least = std::min(least, limit - std::min(limit, used - std::min(used, pages)));
  }
  return least;
}

}  // namespace peft

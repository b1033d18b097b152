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

ControlGroups::ControlGroups(const std::string& membership, const std::string& mount_point) {
  std::ifstream lines(membership);
  // A line is "4:memory:/a/b" in version 1 and "0::/a/b" in version 2.
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    if (controllers == ",,") {
      add(mount_point, path, true);
      add(mount_point + "/unified", path, true);
    } else if (controllers.find(",memory,") != std::string::npos) {
      add(mount_point + "/memory", path, false);
    }
  }
}

/// Adds the group and its ancestors. In a container `path` may be the host's, of which only the root is visible.
void ControlGroups::add(const std::string& root, const std::string& path, bool version_2) {
  fs::path group_path = fs::path(path).lexically_normal().relative_path();
  if (path.find("/..") != std::string::npos) group_path.clear();
  for (;; group_path = group_path.parent_path()) {
    const fs::path folder = group_path.empty() ? fs::path(root) : fs::path(root) / group_path;
    const std::string prefix = folder.string() + "/memory.";
    const Group group = version_2
                            ? Group{prefix + "max", prefix + "current", prefix + "stat", ""}
                            : Group{prefix + "limit_in_bytes", prefix + "usage_in_bytes", prefix + "stat", "total_"};
    std::error_code error;
    if (fs::exists(group.limit, error)) groups_.push_back(group);
    if (group_path.empty()) return;
  }
}

uint64_t ControlGroups::available() const {
  uint64_t available = UINT64_MAX;
  for (const Group& group : groups_) {
    const uint64_t limit = read_number(group.limit);
    constexpr uint64_t unlimited = uint64_t{1} << 62;  // version 1 writes a number near 2^63
    if (limit == 0 || limit >= unlimited) continue;    // 0: version 2 writes "max"
    const uint64_t used = read_number(group.usage);
    const uint64_t page_cache = read_number(group.statistics, group.key_prefix + "inactive_file") +
                                read_number(group.statistics, group.key_prefix + "active_file");
    available = std::min(available, limit - std::min(limit, used - std::min(used, page_cache)));
  }
  return available;
}

}  // namespace peft

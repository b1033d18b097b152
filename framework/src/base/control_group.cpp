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

namespace {

/// The folders of a group and its ancestors. In a container `path` may be the host's, of which only the root is
/// visible.
std::vector<std::string> lineage(const std::string& root, const std::string& path) {
  fs::path group_path = fs::path(path).lexically_normal().relative_path();
  if (path.find("/..") != std::string::npos) group_path.clear();
  std::vector<std::string> folders;
  for (; !group_path.empty(); group_path = group_path.parent_path())
    folders.push_back((fs::path(root) / group_path).string());
  folders.push_back(root);
  return folders;
}

}  // namespace

ControlGroups::ControlGroups(const std::string& membership, const std::string& mount_point) {
  std::ifstream lines(membership);
  // A line is "4:memory:/a/b" in version 1 and "0::/a/b" in version 2.
  for (std::string line; std::getline(lines, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string path = line.substr(second + 1);
    const auto controls = [&](const char* name) { return controllers.find(name) != std::string::npos; };
    if (controllers == ",,") {
      for (const std::string& root : {mount_point, mount_point + "/unified"})
        for (const std::string& folder : lineage(root, path)) {
          add_memory(folder, true);
          add_cpu(folder, true);
        }
    }
    if (controls(",memory,"))
      for (const std::string& folder : lineage(mount_point + "/memory", path)) add_memory(folder, false);
    if (controls(",cpu,"))
      for (const std::string& folder : lineage(mount_point + "/cpu", path)) add_cpu(folder, false);
  }
}

void ControlGroups::add_memory(const std::string& folder, bool version_2) {
  const std::string prefix = folder + "/memory.";
  const MemoryGroup group =
      version_2 ? MemoryGroup{prefix + "max", prefix + "current", prefix + "stat", ""}
                : MemoryGroup{prefix + "limit_in_bytes", prefix + "usage_in_bytes", prefix + "stat", "total_"};
  std::error_code error;
  if (fs::exists(group.limit, error)) memory_groups_.push_back(group);
}

void ControlGroups::add_cpu(const std::string& folder, bool version_2) {
  double quota = 0, period = 0;
  if (version_2) {  // "50000 100000"; "max 100000" without a quota
    std::ifstream(folder + "/cpu.max") >> quota >> period;
  } else {  // -1 without a quota
    std::ifstream(folder + "/cpu.cfs_quota_us") >> quota;
    std::ifstream(folder + "/cpu.cfs_period_us") >> period;
  }
  if (quota > 0 && period > 0) cpu_quota_ = std::min(cpu_quota_, quota / period);
}

uint64_t ControlGroups::available() const {
  uint64_t available = UINT64_MAX;
  for (const MemoryGroup& group : memory_groups_) {
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

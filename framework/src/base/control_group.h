#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace peft {

/// Reads an unsigned number from a file of the kernel: the first word, or the word after `key`. 0 if there is no such
/// number.
uint64_t read_number(const std::string& path, const std::string& key = "");

/// The control groups that limit the memory of this process: its own and their ancestors, in version 2 (memory.max) or
/// version 1 (memory.limit_in_bytes).
class ControlGroups {
 public:
  /// The defaults are the kernel's files; tests pass others.
  explicit ControlGroups(const std::string& membership = "/proc/self/cgroup",
                         const std::string& mount_point = "/sys/fs/cgroup");
  /// Bytes that this process can still use under all limits. The page cache counts as free, because the kernel can drop
  /// it. UINT64_MAX if there is no limit.
  uint64_t available() const;

 private:
  struct Group {
    std::string limit, usage, statistics;  ///< paths of files
    std::string key_prefix;                ///< prefix of the keys in `statistics`
  };
  void add(const std::string& root, const std::string& path, bool version_2);
  std::vector<Group> groups_;
};

}  // namespace peft

#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace peft {

/// Reads an unsigned number from a file of the kernel: the first word, or the word after `key`. 0 if there is no such
/// number.
uint64_t read_number(const std::string& path, const std::string& key = "");

/// The control groups of this process and their ancestors, which limit its memory and its processor time: in version 2
/// (memory.max, cpu.max) or version 1 (memory.limit_in_bytes, cpu.cfs_quota_us).
class ControlGroups {
 public:
  /// The defaults are the kernel's files; tests pass others.
  explicit ControlGroups(const std::string& membership = "/proc/self/cgroup",
                         const std::string& mount_point = "/sys/fs/cgroup");
  /// Bytes that this process can still use under all limits. The page cache counts as free, because the kernel can drop
  /// it. UINT64_MAX if there is no limit.
  uint64_t available() const;
  /// The tightest CPU quota, in cores: 1.5 is 150 ms of processor time in 100 ms. Infinity if there is none.
  double cpu_quota() const { return cpu_quota_; }

 private:
  struct MemoryGroup {
    std::string limit, usage, statistics;  ///< paths of files
    std::string key_prefix;                ///< prefix of the keys in `statistics`
  };
  void add_memory(const std::string& folder, bool version_2);
  void add_cpu(const std::string& folder, bool version_2);
  std::vector<MemoryGroup> memory_groups_;
  double cpu_quota_ = std::numeric_limits<double>::infinity();
};

}  // namespace peft

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace peft {

/// The number that a file of the system holds, behind `key` where one is given; 0 if it holds none.
uint64_t read_number(const std::string& path, const std::string& key = "");

/// The control groups of this process that bound its memory: its own and those above it, in version 2 (memory.max) or 1
/// (memory.limit_in_bytes).
class ControlGroups {
 public:
  /// Where the system tells of them; others for a test.
  explicit ControlGroups(const std::string& membership = "/proc/self/cgroup",
                         const std::string& mounted = "/sys/fs/cgroup");
  /// Bytes that all of them still allow: a file's pages, which the system may drop, count as free. UINT64_MAX where
  /// none has a bound.
  uint64_t available() const;

 private:
  struct Group {
    std::string limit, usage, statistics;  ///< files
    std::string before;                    ///< of the keys in `statistics`
  };
  void add(const std::string& root, const std::string& path, bool second);
  std::vector<Group> groups_;
};

}  // namespace peft

// Shows that the tightest limit of this process's control groups and their ancestors applies, in version 1 and 2,
// inside a container, too; that the page cache counts as free; that "max" and absent files mean no limit; and the same
// of the CPU quota.
#include "base/control_group.h"

#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "support/test.h"

namespace {

namespace fs = std::filesystem;

/// A temporary copy of /sys/fs/cgroup and /proc/self/cgroup.
class System {
 public:
  System() {
    std::string name = (fs::temp_directory_path() / "peft_groups_XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    root_ = name;
  }
  ~System() { fs::remove_all(root_); }
  void write(const fs::path& file, const std::string& text) const {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text << "\n";
  }
  /// A group of version 2 that uses `used` bytes, 60 of them page cache.
  void group(const fs::path& folder, const std::string& limit, int used) const {
    write(folder / "memory.max", limit);
    write(folder / "memory.current", std::to_string(used));
    write(folder / "memory.stat", "anon 1000\nfile 4000\ninactive_file 20\nactive_file 40");
  }
  uint64_t available(const std::string& membership) const { return groups(membership).available(); }
  double cpu_quota(const std::string& membership) const { return groups(membership).cpu_quota(); }

 private:
  peft::ControlGroups groups(const std::string& membership) const {
    write("membership", membership);
    return peft::ControlGroups((root_ / "membership").string(), (root_ / "mounted").string());
  }
  fs::path root_;
};

}  // namespace

TEST_CASE("memory is unlimited without a group or without a limit") {
  const System system;
  CHECK(system.available("") == UINT64_MAX);
  CHECK(system.available("nonsense\n:\n0:") == UINT64_MAX);
  CHECK(system.available("0::/") == UINT64_MAX);
  system.group("mounted/a", "max", 500);
  CHECK(system.available("0::/a") == UINT64_MAX);
  CHECK(peft::ControlGroups("/nonexistent", "/nonexistent").available() == UINT64_MAX);
}

TEST_CASE("in version 2 the tightest limit of a group and its ancestors applies") {
  const System system;
  system.group("mounted/a", "1000", 700);
  CHECK(system.available("0::/a") == 360);  // 1000 - (700 - 60)
  CHECK(system.available("0::/a/b") == 360);
  system.group("mounted/a/b", "400", 100);
  CHECK(system.available("0::/a/b") == 360);
  CHECK(system.available("0::/a/b/c") == 360);
  system.group("mounted/a/b", "150", 100);
  CHECK(system.available("0::/a/b") == 110);
  system.group("mounted/a/b", "150", 900);  // already above the limit
  CHECK(system.available("0::/a/b") == 0);
  CHECK(system.available("0::/other") == UINT64_MAX);
}

TEST_CASE("in version 1 the limit applies although version 2 is mounted, too") {
  const System system;
  system.write("mounted/memory/a/memory.limit_in_bytes", "1000");
  system.write("mounted/memory/a/memory.usage_in_bytes", "700");
  system.write("mounted/memory/a/memory.stat", "active_file 1\ntotal_inactive_file 20\ntotal_active_file 40");
  system.write("mounted/memory/memory.limit_in_bytes", "9223372036854771712");
  CHECK(system.available("4:memory:/a\n0::/") == 360);
  CHECK(system.available("4:cpu,memory,pids:/a/b\n0::/") == 360);
  CHECK(system.available("4:memory:/\n3:cpu:/a") == UINT64_MAX);
}

TEST_CASE("in a container, where the path is the host's, the root's limit applies") {
  const System system;
  system.group("mounted", "1000", 700);
  CHECK(system.available("0::/system.slice/docker-1234.scope") == 360);
  CHECK(system.available("0::/../../elsewhere") == 360);
  CHECK(system.available("0::/") == 360);
}

TEST_CASE("the CPU is unlimited without a group or without a quota") {
  const System system;
  CHECK(std::isinf(system.cpu_quota("")));
  CHECK(std::isinf(system.cpu_quota("0::/a")));
  system.write("mounted/a/cpu.max", "max 100000");
  CHECK(std::isinf(system.cpu_quota("0::/a")));
  for (const char* nonsense : {"", "100000", "nonsense", "100000 0", "-1 100000"}) {
    system.write("mounted/a/cpu.max", nonsense);
    CHECK(std::isinf(system.cpu_quota("0::/a")));
  }
}

TEST_CASE("in version 2 the tightest CPU quota of a group and its ancestors applies") {
  const System system;
  system.write("mounted/a/cpu.max", "100000 100000");
  CHECK(system.cpu_quota("0::/a") == 1);
  CHECK(system.cpu_quota("0::/a/b") == 1);
  system.write("mounted/a/b/cpu.max", "400000 100000");
  CHECK(system.cpu_quota("0::/a/b") == 1);
  system.write("mounted/a/b/cpu.max", "25000 50000");
  CHECK(system.cpu_quota("0::/a/b/c") == 0.5);
  CHECK(std::isinf(system.cpu_quota("0::/other")));
}

TEST_CASE("in version 1 the CPU quota applies although version 2 is mounted, too") {
  const System system;
  system.write("mounted/cpu/a/cpu.cfs_quota_us", "150000");
  system.write("mounted/cpu/a/cpu.cfs_period_us", "100000");
  system.write("mounted/cpu/a/b/cpu.cfs_quota_us", "-1");
  system.write("mounted/cpu/a/b/cpu.cfs_period_us", "100000");
  CHECK(system.cpu_quota("4:cpu:/a\n0::/") == 1.5);
  CHECK(system.cpu_quota("4:cpu,cpuacct:/a/b\n3:memory:/") == 1.5);
  CHECK(std::isinf(system.cpu_quota("4:cpuset:/a\n3:cpuacct:/a")));
}

TEST_CASE("in a container, where the path is the host's, the root's CPU quota applies") {
  const System system;
  system.write("mounted/cpu.max", "200000 100000");
  CHECK(system.cpu_quota("0::/system.slice/docker-1234.scope") == 2);
  system.write("mounted/cpu/cpu.cfs_quota_us", "100000");
  system.write("mounted/cpu/cpu.cfs_period_us", "100000");
  CHECK(system.cpu_quota("4:cpu,cpuacct:/docker/1234\n0::/") == 1);
}

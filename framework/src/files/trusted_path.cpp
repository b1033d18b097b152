#include "files/trusted_path.h"

#include <grp.h>
#include <pwd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <filesystem>

#include "peft/base/error.h"

namespace peft::detail {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw UntrustedPath(printable_path(path) + ": refused, because " + why);
}

/// `named`: what the message calls the file with `status`, if that is not `path` itself.
void check_user(const std::string& path, const std::string& named, const struct stat& status) {
  if (status.st_uid != 0 && status.st_uid != ::geteuid())
    refuse(path, named + " belongs to another user (uid " + std::to_string(status.st_uid) + ")");
}

/// Whether the effective user is the only one in the group: where each user has a group of their own, the usual umask
/// is 002. OpenSSH of these systems trusts it, too.
bool is_private_group(gid_t group) {
  std::array<char, 16384> user_text, group_text;
  struct passwd user{}, *found_user = nullptr;
  struct group entry{}, *found_group = nullptr;
  if (::getpwuid_r(::geteuid(), &user, user_text.data(), user_text.size(), &found_user) != 0 || found_user == nullptr ||
      ::getgrgid_r(group, &entry, group_text.data(), group_text.size(), &found_group) != 0 || found_group == nullptr)
    return false;
  if (user.pw_gid != group || std::strcmp(user.pw_name, entry.gr_name) != 0) return false;
  for (char** member = entry.gr_mem; *member != nullptr; ++member)
    if (std::strcmp(*member, user.pw_name) != 0) return false;
  return true;
}

void check_writers(const std::string& path, const std::string& named, const struct stat& status) {
  const bool group_writes = (status.st_mode & S_IWGRP) != 0 && !is_private_group(status.st_gid);
  if (group_writes || (status.st_mode & S_IWOTH) != 0)
    refuse(path, "users other than its owner can write " + named + " (chmod go-w)");
}

struct stat examined(const std::string& path) {
  struct stat status{};
  if (::lstat(path.c_str(), &status) != 0) throw UntrustedPath(printable_path(path) + ": " + std::strerror(errno));
  return status;
}

/// Follows a path to a folder, one component at a time.
class PathWalk {
 public:
  explicit PathWalk(const std::string& folder) : folder_(folder) { follow(folder); }
  /// Returns false at the end.
  bool step() {
    if (rest_.empty()) return false;
    const fs::path name = rest_.front();
    rest_.pop_front();
    if (name == "..") at_ = at_.parent_path();  // at_ has no links: it is the folder's own parent
    if (name.empty() || name == "." || name == "..") return true;
    enter(name.is_absolute() ? name : at_ / name);
    return true;
  }
  const fs::path& at() const { return at_; }

 private:
  void follow(const fs::path& path) { rest_.insert(rest_.begin(), path.begin(), path.end()); }
  void enter(const fs::path& next) {
    const struct stat status = examined(next.string());
    const std::string named = next == fs::path(folder_) ? "it" : printable_path(next.string());
    check_user(folder_, named, status);
    if (S_ISLNK(status.st_mode)) {
      constexpr int max_links = 40;  // Linux's limit
      if (++links_ > max_links) refuse(folder_, "it goes through too many symbolic links");
      return follow(fs::read_symlink(next));
    }
    if (!S_ISDIR(status.st_mode)) refuse(folder_, named + " is not a folder");
    if ((status.st_mode & S_ISVTX) == 0) check_writers(folder_, named, status);
    at_ = next;
  }

  const std::string& folder_;
  fs::path at_ = "/";
  std::deque<fs::path> rest_;
  int links_ = 0;
};

}  // namespace

void check_owner(const std::string& path, const struct stat& status) {
  check_user(path, "it", status);
  check_writers(path, "it", status);
}

void check_trusted_folder(const std::string& folder) {
  PathWalk walk(folder);
  while (walk.step()) {
  }
  check_owner(folder, examined(walk.at().string()));  // in a sticky folder anyone can create files
}

}  // namespace peft::detail

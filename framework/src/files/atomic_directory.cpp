#include "peft/files/atomic_directory.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "files/descriptor.h"
#include "peft/base/error.h"

namespace peft {

namespace fs = std::filesystem;

AtomicDirectory::AtomicDirectory(const std::string& path, bool replace_existing)
    : path_(path), staging_(path + kStagingSuffix), replace_existing_(replace_existing) {
  std::error_code error;
  std::optional<DirectoryLock> leftover_lock;
  if (fs::is_directory(fs::symlink_status(staging_, error))) leftover_lock.emplace(staging_);
  fs::remove_all(staging_, error);
  const fs::path parent = fs::path(staging_).parent_path();
  if (!error && !parent.empty()) fs::create_directories(parent, error);
  if (!error && !fs::create_directory(staging_, error) && !error) fail("another process is writing it");
  if (error) fail(error.message());
  try {
    lock_.emplace(staging_);
  } catch (const FolderInUse&) {
    throw;
  } catch (const ResourceError&) {
    fs::remove(staging_, error);
    throw;
  }
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code error;
  if (!staging_.empty()) fs::remove_all(staging_, error);
}

std::string AtomicDirectory::file(const std::string& name) const { return (fs::path(staging_) / name).string(); }

void AtomicDirectory::commit() {
  if (!sync_folder(staging_)) fail(std::strerror(errno));
  std::error_code error;
  // An exchange leaves no moment without a directory of that name. The old one then has the temporary name.
  const bool exists = fs::exists(fs::symlink_status(path_));
  if (exists && !replace_existing_) fail("a file or folder of that name was created meanwhile");
  const bool exchanged =
      exists && ::renameat2(AT_FDCWD, staging_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0;
  if (exists && !exchanged) {  // the file system does not support it: move the old one away first
    fs::remove_all(path_ + kTrashSuffix, error);
    if (!error) fs::rename(path_, path_ + kTrashSuffix, error);
  }
  if (!error && !exchanged) fs::rename(staging_, path_, error);
  if (error) fail(error.message());
  if (!sync_folder(fs::path(path_).parent_path().string())) fail(std::strerror(errno));
  if (exists) fs::remove_all(exchanged ? staging_ : path_ + kTrashSuffix, error);
  staging_.clear();
  lock_.reset();
}

void make_folder(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error).lexically_normal();
  std::vector<fs::path> created;
  for (fs::path folder = absolute; !error && !fs::exists(folder, error); folder = folder.parent_path())
    created.push_back(folder);
  if (!error || error == std::errc::no_such_file_or_directory) fs::create_directories(path, error);
  if (error) throw ResourceError(printable_path(path) + ": cannot be created: " + error.message());
  for (const fs::path& folder : created) {
    const std::string parent = folder.parent_path().string();
    if (!sync_folder(parent) && errno != EACCES)  // EACCES: writable but not readable
      throw ResourceError(printable_path(parent) + ": cannot be synced: " + std::strerror(errno));
  }
}

void AtomicDirectory::fail(const std::string& why) const {
  throw ResourceError(printable_path(path_) + ": cannot be created: " + why);
}

}  // namespace peft

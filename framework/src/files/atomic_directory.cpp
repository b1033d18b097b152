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
    : path_(path), draft_(path + kStagingSuffix), over_another_(replace_existing) {
  std::error_code error;
  std::optional<DirectoryLock> left;
  if (fs::is_directory(fs::symlink_status(draft_, error))) left.emplace(draft_);
  fs::remove_all(draft_, error);
  const fs::path above = fs::path(draft_).parent_path();
  if (!error && !above.empty()) fs::create_directories(above, error);
  if (!error && !fs::create_directory(draft_, error) && !error) fail("another process is writing it");
  if (error) fail(error.message());
  try {
    lock_.emplace(draft_);
  } catch (const FolderInUse&) {
    throw;
  } catch (const ResourceError&) {
    fs::remove(draft_, error);
    throw;
  }
}

AtomicDirectory::~AtomicDirectory() {
  std::error_code error;
  if (!draft_.empty()) fs::remove_all(draft_, error);
}

std::string AtomicDirectory::file(const std::string& name) const { return (fs::path(draft_) / name).string(); }

void AtomicDirectory::commit() {
  if (!sync_folder(draft_)) fail(std::strerror(errno));
  std::error_code error;
  // Exchanged, so that one of the two is under the name at every moment; the old one is then the draft, and goes.
  const bool there = fs::exists(fs::symlink_status(path_));
  if (there && !over_another_) fail("something of that name is there now");
  const bool exchanged = there && ::renameat2(AT_FDCWD, draft_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0;
  if (there && !exchanged) {  // a file system that cannot: the old one is under another name for a moment
    fs::remove_all(path_ + kTrashSuffix, error);
    if (!error) fs::rename(path_, path_ + kTrashSuffix, error);
  }
  if (!error && !exchanged) fs::rename(draft_, path_, error);
  if (error) fail(error.message());
  if (!sync_folder(fs::path(path_).parent_path().string())) fail(std::strerror(errno));
  if (there) fs::remove_all(exchanged ? draft_ : path_ + kTrashSuffix, error);
  draft_.clear();
  lock_.reset();
}

void make_folder(const std::string& path) {
  std::error_code error;
  const fs::path whole = fs::absolute(path, error).lexically_normal();
  std::vector<fs::path> fresh;
  for (fs::path at = whole; !error && !fs::exists(at, error); at = at.parent_path()) fresh.push_back(at);
  if (!error || error == std::errc::no_such_file_or_directory) fs::create_directories(path, error);
  if (error) throw ResourceError(printable(path, 4096) + " cannot be made: " + error.message());
  for (const fs::path& made : fresh)
    if (!sync_folder(made.parent_path().string()) && errno != EACCES)  // one that may be written, not read
      throw ResourceError(printable(made.parent_path().string(), 4096) + " cannot be synced: " + std::strerror(errno));
}

void AtomicDirectory::fail(const std::string& why) const {
  throw ResourceError(printable(path_, 4096) + " cannot be made: " + why);
}

}  // namespace peft

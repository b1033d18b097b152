#include "peft/files/draft_folder.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "files/descriptor.h"
#include "peft/error.h"

namespace peft {

namespace fs = std::filesystem;

DraftFolder::DraftFolder(const std::string& path) : path_(path), draft_(path + ending) {
  std::error_code error;
  fs::remove_all(draft_, error);
  if (!error) fs::create_directories(draft_, error);
  if (error) fail(error.message());
}

DraftFolder::~DraftFolder() {
  std::error_code error;
  if (!draft_.empty()) fs::remove_all(draft_, error);
}

std::string DraftFolder::file(const std::string& name) const { return (fs::path(draft_) / name).string(); }

void DraftFolder::publish() {
  if (!sync_folder(draft_)) fail(std::strerror(errno));
  std::error_code error;
  // Exchanged, so that one of the two is under the name at every moment; the old one is then the draft, and goes.
  const bool exchanged =
      fs::exists(path_) && ::renameat2(AT_FDCWD, draft_.c_str(), AT_FDCWD, path_.c_str(), RENAME_EXCHANGE) == 0;
  if (!exchanged) {
    fs::remove_all(path_, error);
    if (!error) fs::rename(draft_, path_, error);
  }
  if (error) fail(error.message());
  if (!sync_folder(fs::path(path_).parent_path().string())) fail(std::strerror(errno));
  if (exchanged) fs::remove_all(draft_, error);
  draft_.clear();
}

void DraftFolder::fail(const std::string& why) const {
  throw ResourceError(printable(path_, 4096) + " cannot be made: " + why);
}

}  // namespace peft

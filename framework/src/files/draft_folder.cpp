#include "peft/files/draft_folder.h"

#include <filesystem>

#include "peft/error.h"

namespace peft {

namespace fs = std::filesystem;

DraftFolder::DraftFolder(const std::string& path) : path_(path), draft_(path + ".writing") {
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
  std::error_code error;
  fs::remove_all(path_, error);
  if (!error) fs::rename(draft_, path_, error);
  if (error) fail(error.message());
  draft_.clear();
}

void DraftFolder::fail(const std::string& why) const {
  throw ResourceError(printable(path_, 4096) + " cannot be made: " + why);
}

}  // namespace peft

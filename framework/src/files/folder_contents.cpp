// What is in a folder that is not what was expected, so that an error can name what to give instead.
#include "files/folder_contents.h"

#include <algorithm>

#include "peft/base/error.h"

namespace peft {

namespace fs = std::filesystem;

std::string subfolder_with(const fs::path& folder, const std::string& prefix, const std::string& file) {
  std::string best;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    std::error_code ignored;
    const bool fits = name.starts_with(prefix) && fs::is_directory(it->path(), ignored) &&
                      (file.empty() || fs::exists(it->path() / file, ignored));
    if (fits && (best.empty() || std::pair(best.size(), best) < std::pair(name.size(), name))) best = name;
  }
  return best.empty() ? "" : (folder / best).string();
}

std::string file_with(const fs::path& folder, const std::string& extension) {
  std::string first;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    if (const std::string name = it->path().filename().string();
        name.ends_with(extension) && (first.empty() || name < first))
      first = name;
  return first.empty() ? "" : (folder / first).string();
}

namespace {

bool is_hub_part(const std::string& part) {
  return !part.empty() && part.front() != '.' &&
         part.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") == part.npos;
}

}  // namespace

std::string hub_hint(const std::string& path) {
  // The paths of an experiment are absolute, so a name on the hub is at their end.
  const fs::path last = fs::path(path).lexically_normal();
  const std::string name = last.filename().string(), owner = last.parent_path().filename().string();
  std::error_code error;
  if (!is_hub_part(name) || !is_hub_part(owner) || fs::exists(last.parent_path(), error) || name.ends_with(".gguf"))
    return "";
  return "; nothing is downloaded: if '" + printable(owner + "/" + name) +
         "' is a name on the Hugging Face hub, run 'hf download " + printable(owner + "/" + name) +
         " --local-dir DIR' and give DIR";
}

}  // namespace peft

#include "peft/data/token_cache.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>

#include "base/digest.h"
#include "data/formats.h"
#include "data/records.h"
#include "data/token_file.h"
#include "files/mapped_file.h"
#include "files/trusted_path.h"
#include "peft/base/error.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using Clock = fs::file_time_type::clock;

/// Increment this when the same data, text pipeline and options give other tokens than before.
constexpr std::string_view version = "5";
constexpr std::string_view ending = ".tokens";

std::string folder_of(const std::string& setting) {
  if (setting != "auto") return setting;
  const auto under = [](const char* variable, const char* rest) {
    const char* value = std::getenv(variable);
    const bool usable = value != nullptr && fs::path(value).is_absolute();
    return usable ? (fs::path(value) / rest).string() : std::string();
  };
  std::string folder = under("PEFT_CACHE", "tokens");
  if (folder.empty()) folder = under("XDG_CACHE_HOME", "peft/tokens");
  if (folder.empty()) folder = under("HOME", ".cache/peft/tokens");
  return folder;
}

/// "" if a data file cannot be read, which the loader reports.
std::string key_of(const StringList& files, const DataOptions& options, const std::string& text) {
  Digest key;
  key.add(version);
  key.add(text);
  key.add(options.format);
  if (!options.formats.empty() && options.formats != data::format_names())
    for (const std::string& format : options.formats) key.add(format);
  key.add(std::to_string(options.max_length));
  key.add(options.system);
  for (const std::string& path : files) try {
      const auto file = MappedFile::open(path);
      key.add(fs::path(path).extension().string());
      key.add({reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()});
    } catch (const InputError&) {
      return "";
    }
  return key.hex();
}

/// Makes the folder and its missing parents, for this user only.
void make_private_folder(const fs::path& folder) {
  std::error_code error;
  if (fs::is_directory(folder, error)) return;
  if (folder.has_relative_path() && folder != folder.parent_path()) make_private_folder(folder.parent_path());
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST)
    throw ResourceError(printable_path(folder.string()) + ": cannot be made: " + std::strerror(errno));
}

/// Removes the least recently used files down to `limit` bytes, and drafts of processes that died.
void prune(const std::string& folder, uint64_t limit) {
  struct File {
    fs::path path;
    fs::file_time_type used;
    uint64_t size;
  };
  std::vector<File> files;
  uint64_t total = 0;
  std::error_code error;
  for (auto entry = fs::directory_iterator(folder, error); !error && entry != fs::directory_iterator();
       entry.increment(error)) {
    std::error_code gone;  // another process may prune, too
    const std::string name = entry->path().filename().string();
    File file{entry->path(), entry->last_write_time(gone), entry->file_size(gone)};
    if (gone || !entry->is_regular_file(gone)) continue;
    const bool draft = name.starts_with(".") && name.find(std::string(ending) + ".writing-") != std::string::npos;
    if (draft && Clock::now() - file.used > std::chrono::hours(24)) fs::remove(file.path, gone);
    if (!name.ends_with(ending)) continue;
    total += file.size;
    files.push_back(std::move(file));
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.used < b.used; });
  for (const File& file : files) {
    if (total <= limit) return;
    fs::remove(file.path, error);
    total -= file.size;
  }
}

}  // namespace

TokenCache::TokenCache(const std::string& folder, uint64_t limit) : folder_(folder_of(folder)), limit_(limit) {}

Dataset TokenCache::load(const StringList& files, const DataOptions& options, const LazyText& text) const {
  for (const std::string& file : files) data::check_data_file(file);  // before gigabytes are hashed
  const std::string fingerprint = folder_.empty() ? "" : text.fingerprint();
  const std::string key = folder_.empty() ? "" : key_of(files, options, fingerprint);
  if (key.empty()) return load_dataset(files, options, text.get());
  const std::string path = (fs::path(folder_) / (key + std::string(ending))).string();
  if (auto found = find(path, key, files.size())) {
    for (const std::string& file : files) found->files.push_back(printable(file, 1000));
    found->cached = true;
    return std::move(*found);
  }
  Dataset set = load_dataset(files, options, text.get());
  // A file may have changed in the meantime; then the key does not match what was read.
  if (key_of(files, options, fingerprint) == key) try {
      store(path, key, set);
    } catch (const ResourceError& error) {
      set.cache_error = error.what();
    } catch (const detail::UntrustedPath& error) {
      set.cache_error = error.what();
    }
  return set;
}

/// Another user could put any tokens into a folder that is not trusted; store() reports it.
std::optional<Dataset> TokenCache::find(const std::string& path, const std::string& key, std::size_t files) const {
  try {
    detail::check_trusted_folder(folder_);
  } catch (const detail::UntrustedPath&) {
    return std::nullopt;
  }
  auto found = data::read_token_file(path, key, files);
  std::error_code ignored;  // a folder that may only be read
  if (found) fs::last_write_time(path, Clock::now(), ignored);
  return found;
}

void TokenCache::store(const std::string& path, const std::string& key, const Dataset& set) const {
  make_private_folder(folder_);
  detail::check_trusted_folder(folder_);
  if (data::write_token_file(path, key, set, limit_) > 0) prune(folder_, limit_);
}

}  // namespace peft

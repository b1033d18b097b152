#include "peft/files/manifest.h"

#include <fcntl.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <vector>

#include "base/sha256.h"
#include "files/descriptor.h"
#include "peft/base/error.h"
#include "peft/files/json.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
constexpr const char* kManifest = "manifest.json";

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw InputError(printable_path(path) + ": " + why);
}

/// The files in the folder and its subfolders, except the manifest, as "name" or "folder/name". Throws InputError if
/// there is anything that is neither a regular file nor a folder.
std::set<std::string> files_in(const std::string& folder) {
  std::error_code error;
  std::set<std::string> names;
  auto it = fs::recursive_directory_iterator(folder, error);  // follows no links
  for (; !error && it != fs::recursive_directory_iterator(); it.increment(error)) {
    const std::string name = it->path().lexically_relative(folder).generic_string();
    const fs::file_type type = it->symlink_status(error).type();
    if (name == kManifest || type == fs::file_type::directory) continue;
    if (type != fs::file_type::regular) refuse(it->path().string(), "not a regular file");
    names.insert(name);
  }
  if (error) refuse(folder, error.message());
  return names;
}

nlohmann::json checksum(const std::string& path) {
  const Descriptor file = open_for_reading(path);
  if (file.number < 0) refuse(path, std::string("cannot be opened: ") + std::strerror(errno));
  std::vector<char> buffer(std::size_t{1} << 16);
  Sha256 sha256;
  uint64_t size = 0;
  for (;;) {
    const ssize_t got = ::read(file.number, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) refuse(path, std::string("cannot be read: ") + std::strerror(errno));
    if (got == 0) break;
    sha256.add(buffer.data(), static_cast<std::size_t>(got));
    size += static_cast<uint64_t>(got);
  }
  return {{"sha256", sha256.hex()}, {"size", size}};
}

}  // namespace

void write_manifest(const std::string& folder) {
  nlohmann::json files = nlohmann::json::object();
  for (const std::string& name : files_in(folder)) files[name] = checksum((fs::path(folder) / name).string());
  write_file((fs::path(folder) / kManifest).string(), nlohmann::json{{"version", 1}, {"files", files}}.dump(2) + "\n");
}

void verify_manifest(const std::string& folder) {
  const std::string path = (fs::path(folder) / kManifest).string();
  const std::set<std::string> names = files_in(folder);
  std::error_code error;
  if (!fs::exists(path, error)) refuse(folder, "manifest.json is missing: the folder was not completely written");
  const nlohmann::json manifest = read_json(path);
  if (!manifest.is_object() || manifest.value("version", nlohmann::json()) != 1 || !manifest.contains("files") ||
      !manifest["files"].is_object())
    refuse(path, "not a manifest of version 1");
  const nlohmann::json& files = manifest["files"];
  for (const auto& [name, sum] : files.items())
    if (!names.contains(name)) refuse(folder, "'" + printable(name) + "' is missing");
  for (const std::string& name : names) {
    if (!files.contains(name)) refuse(folder, "contains '" + printable(name) + "', which is not in its manifest");
    if (checksum((fs::path(folder) / name).string()) != files[name])
      refuse((fs::path(folder) / name).string(), "does not match its manifest (size or SHA-256)");
  }
}

}  // namespace peft

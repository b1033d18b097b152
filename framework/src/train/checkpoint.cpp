#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "files/atomic_file.h"
#include "files/descriptor.h"
#include "peft/adapters/adapter_state.h"
#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/files/json.h"
#include "peft/files/manifest.h"
#include "peft/runtime/state_dict_file.h"
#include "peft/train/checkpoint.h"

namespace peft {

namespace {

namespace fs = std::filesystem;
using json = nlohmann::ordered_json;

constexpr const char* kPrefix = "checkpoint-";
constexpr const char* kAbout = "checkpoint.json";
constexpr const char* kAside = ".aside";  // words: ok
/// For headers, texts and the file system's metadata.
constexpr uint64_t kOverhead = uint64_t{1} << 20;

/// The step of "checkpoint-12"; nothing for another name.
std::optional<int64_t> step_of(const std::string& name) {
  const std::string prefix = kPrefix;
  if (!name.starts_with(prefix)) return std::nullopt;
  int64_t step = 0;
  const char* end = name.data() + name.size();
  const auto [at, error] = std::from_chars(name.data() + prefix.size(), end, step);
  if (error != std::errc() || at != end || step < 0 || name != prefix + std::to_string(step)) return std::nullopt;
  return step;
}

/// The entries of a folder; none if it does not exist. Throws for one that cannot be read.
std::vector<fs::path> list_directory(const std::string& folder) {
  std::vector<fs::path> all;
  std::error_code error;
  auto entry = fs::directory_iterator(folder, error);
  if (error == std::errc::no_such_file_or_directory || error == std::errc::not_a_directory) return all;
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) all.push_back(entry->path());
  if (error) throw ResourceError(printable_path(folder) + " cannot be listed: " + error.message());
  return all;
}

void remove_all_or_throw(const fs::path& path) {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw ResourceError(printable_path(path.string()) + " cannot be removed: " + error.message());
}

}  // namespace

std::string checkpoint_folder(const std::string& output_dir, int64_t step) {
  return (fs::path(output_dir) / (kPrefix + std::to_string(step))).string();
}

std::vector<CheckpointDirectory> checkpoints_in(const std::string& output_dir) {
  std::vector<CheckpointDirectory> all;
  std::error_code error;
  for (const fs::path& path : list_directory(output_dir))
    if (const auto step = step_of(path.filename().string()); step && fs::is_directory(fs::symlink_status(path, error)))
      all.push_back({*step, path.string()});
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.step > b.step; });
  return all;
}

void require_space(const std::string& folder, uint64_t bytes, const std::string& what) {
  std::error_code error;
  const fs::space_info space = fs::space(folder, error);
  if (error || space.available >= bytes) return;  // where the file system does not report it, writing shows it
  throw ResourceError(printable_path(folder) + ": " + what + " needs " + std::to_string(bytes) +
                      " bytes, the disk has " + std::to_string(space.available));
}

std::string write_checkpoint(const std::string& output_dir, const Snapshot& snapshot, const AdapterStack& adapters,
                             const Model& model, const json& about, const std::map<std::string, std::string>& files) {
  const std::string path = checkpoint_folder(output_dir, snapshot.step);
  uint64_t bytes = kOverhead;
  for (const NamedAdapter& adapter : adapters) bytes += checkpoint_bytes(*adapter.adapter, model);
  for (const auto& [part, state] : snapshot.states)
    for (const auto& [name, tensor] : state) bytes += tensor.nbytes();
  for (const auto& [name, text] : files) bytes += text.size();
  require_space(output_dir, bytes, "checkpoint-" + std::to_string(snapshot.step));

  AtomicDirectory draft(path, /*replace_existing=*/true);
  save_adapters(draft.path(), adapters, model);
  for (const NamedAdapter& adapter : adapters)
    save_adapter_state(folder_of(adapter, draft.path()), *adapter.adapter, model);
  json parts = json::array();
  for (const auto& [name, state] : snapshot.states) {
    if (!state.empty()) write_state(draft.file(name + ".safetensors"), state, {});
    parts.push_back(name);
  }
  for (const auto& [name, text] : files) write_file(draft.file(name), text);
  json all = {{"version", 1}, {"step", snapshot.step}, {"parts", parts}, {"about", about}};
  if (snapshot.temporary) all["temporary"] = true;
  write_file(draft.file(kAbout), all.dump(2) + "\n");
  write_manifest(draft.path());
  draft.commit();
  return path;
}

TrainingCheckpoint read_checkpoint(const std::string& path) {
  verify_manifest(path);
  const std::string file = (fs::path(path) / kAbout).string();
  const nlohmann::json all = read_json(file);
  const auto has = [&](const char* key, auto is) { return all.contains(key) && (all[key].*is)(); };
  if (!all.is_object() || all.value("version", nlohmann::json()) != 1 ||
      !has("step", &nlohmann::json::is_number_integer) || !has("parts", &nlohmann::json::is_array) ||
      !has("about", &nlohmann::json::is_object))
    throw InputError(printable_path(file) + ": not a checkpoint of this version");
  TrainingCheckpoint read{path, all["step"].get<int64_t>(), {}, std::make_shared<nlohmann::json>(all["about"])};
  if (const auto named = step_of(fs::path(path).filename().string()); named && *named != read.step)
    throw InputError(printable_path(path) + ": is of step " + std::to_string(read.step) +
                     ", which does not match its name");
  for (const auto& part : all["parts"]) {
    const std::string name = part.is_string() ? part.get<std::string>() : "";
    if (name.empty() || name.find_first_of("/\0", 0, 2) != std::string::npos)
      throw InputError(printable_path(file) + ": names an invalid component");
    const std::string state = (fs::path(path) / (name + ".safetensors")).string();
    read.states[name] =
        fs::exists(state) ? read_state(state) : StateDict{};  // the manifest lists those that were written
  }
  return read;
}

namespace {

void remove_checkpoint(const CheckpointDirectory& folder, const std::string& output_dir) {
  std::error_code error;
  const std::string trash = folder.path + AtomicDirectory::kTrashSuffix;
  fs::rename(folder.path, trash, error);
  if (error) throw ResourceError(printable_path(folder.path) + " cannot be removed: " + error.message());
  // The name must be gone durably before the first file is.
  if (!sync_folder(output_dir)) {
    const std::string why = std::strerror(errno);
    fs::rename(trash, folder.path, error);
    if (error) remove_all_or_throw(trash);
    throw ResourceError(printable_path(output_dir) + " cannot be synced: " + why);
  }
  remove_all_or_throw(trash);
}

/// A corrupt checkpoint is not: it says nothing.
bool is_temporary(const std::string& path) {
  try {
    const nlohmann::json about = read_json((fs::path(path) / kAbout).string());
    return about.is_object() && about.value("temporary", nlohmann::json()) == true;
  } catch (const InputError&) {
    return false;
  }
}

}  // namespace

bool is_checkpoint(const std::string& path) {
  std::error_code error;
  return fs::exists(fs::path(path) / kAbout, error) || fs::exists(fs::path(path) / "manifest.json", error);
}

void rotate_checkpoints(const std::string& output_dir, int64_t limit, std::optional<int64_t> keep_step) {
  const std::vector<CheckpointDirectory> all = checkpoints_in(output_dir);
  const bool spares = std::any_of(all.begin(), all.end(), [&](const auto& folder) { return folder.step == keep_step; });
  // As HF's Trainer counts: the one of keep_step is one of the `limit`, and the newest stays as well.
  int64_t others = limit - (spares ? 1 : 0);
  if (spares && all.front().step != keep_step) others = std::max<int64_t>(others, 1);
  for (const CheckpointDirectory& folder : all)
    if (folder.step != keep_step && others-- <= 0 && is_checkpoint(folder.path)) remove_checkpoint(folder, output_dir);
}

void remove_temporary_checkpoints(const std::string& output_dir, int64_t limit) {
  for (const CheckpointDirectory& folder : checkpoints_in(output_dir))
    if (is_temporary(folder.path) && limit-- <= 0) remove_checkpoint(folder, output_dir);
}

namespace {

/// The name, or the name with the first free number.
std::string free_name(const std::string& name) {
  std::error_code error;
  std::string free = name;
  for (int n = 2; fs::exists(fs::symlink_status(free, error)); ++n) free = name + "-" + std::to_string(n);
  return free;
}

}  // namespace

std::vector<std::string> archive_checkpoints_after(const std::string& output_dir, int64_t step) {
  std::vector<std::string> moved;
  for (const CheckpointDirectory& folder : checkpoints_in(output_dir)) {
    if (folder.step <= step) continue;
    moved.push_back(free_name(folder.path + kAside));
    std::error_code error;
    fs::rename(folder.path, moved.back(), error);
    if (error) throw ResourceError(printable_path(folder.path) + " cannot be renamed: " + error.message());
  }
  return moved;
}

void clean_output(const std::string& output_dir, const AdapterStack& adapters) {
  std::vector<fs::path> partial;
  for (const fs::path& path : list_directory(output_dir)) {
    const std::string name = path.filename().string();
    for (const std::string& ending :
         {std::string(AtomicDirectory::kStagingSuffix), std::string(AtomicDirectory::kTrashSuffix)})
      if (name.ends_with(ending) && step_of(name.substr(0, name.size() - ending.size()))) partial.push_back(path);
    if (is_file_draft(name)) partial.push_back(path);
  }
  for (const NamedAdapter& adapter : adapters) {
    const std::string folder = folder_of(adapter, output_dir);
    if (folder == output_dir) continue;
    for (const fs::path& path : list_directory(folder))
      if (is_file_draft(path.filename().string())) partial.push_back(path);
  }
  for (const fs::path& path : partial) remove_all_or_throw(path);
}

}  // namespace peft

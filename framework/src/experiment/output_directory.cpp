#include "experiment/output_directory.h"

#include <torch/types.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "adapters/adapter_folder.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/files/json.h"
#include "peft/pretrained/vocabulary_overlay.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

/// Lists the files that runs have written, so that a file of the user's is never taken for one.
constexpr const char* kRecord = ".peft-run.json";

bool has_file(const fs::path& folder, const std::string& file) {
  std::error_code error;
  return fs::exists(fs::symlink_status(folder / file, error));
}

/// The names in the folder's record, of files that still exist.
std::set<std::string> read_record(const fs::path& folder) {
  const std::string path = (folder / kRecord).string();
  const nlohmann::json record = read_json(path);
  if (!record.is_object() || !record.contains("files") || !record["files"].is_array())
    throw InputError(printable_path(path) + ": not the record of a run; delete it if it is not yours");
  std::set<std::string> names;
  for (const nlohmann::json& name : record["files"])
    if (name.is_string() && has_file(folder, name.get<std::string>())) names.insert(name.get<std::string>());
  return names;
}

/// Whether a version without the record has run in the folder.
bool is_unrecorded_run(const std::string& folder) {
  for (const CheckpointDirectory& checkpoint : checkpoints_in(folder))
    if (is_checkpoint(checkpoint.path)) return true;
  return has_file(folder, "resolved.toml") && has_file(folder, kAdapterWeights);
}

/// Whether the folder has a run's adapter, of whatever name: of this run or of another one.
bool has_adapter(const std::string& output_dir, const AdapterStack& adapters) {
  for (const NamedAdapter& adapter : adapters)
    if (has_file(folder_of(adapter, output_dir), kAdapterWeights)) return true;
  if (has_file(output_dir, kAdapterWeights)) return true;
  if (!has_file(output_dir, kRecord) && !has_file(output_dir, "trainer_state.json"))
    return false;  // not a run's folder, so its subfolders are something else
  std::error_code error;
  for (auto entry = fs::directory_iterator(output_dir, error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    if (!entry->path().filename().string().starts_with("checkpoint-") && has_file(entry->path(), kAdapterWeights))
      return true;
  return false;
}

bool is_written_at_end(const std::string& name) { return name == "README.md" || name == "trainer_state.json"; }

void make_output_dir(const std::string& path) {
  try {
    make_folder(path);
  } catch (const ResourceError& error) {
    throw ResourceError(std::string("[training] output_dir: ") + error.what());
  }
}

}  // namespace

OutputDirectory::OutputDirectory(const Experiment& experiment)
    : experiment_(experiment), path_(experiment.training.output_dir) {
  std::error_code error;
  if (!fs::is_directory(path_, error)) return;
  lock_.emplace(path_);
  if (has_file(path_, kRecord))
    own_files_ = read_record(path_);
  else if (is_unrecorded_run(path_))
    for (const std::string& name : files_to_write()) own_files_.insert(name);
}

StringList OutputDirectory::files_to_write() const {
  StringList names{"README.md", "metrics.jsonl", "resolved.toml", "trainer_state.json"};
  for (const NamedAdapter& adapter : experiment_.adapters) {
    const fs::path folder = folder_of(adapter, path_);
    const std::string prefix = folder == fs::path(path_) ? "" : adapter.name + "/";
    for (const char* name : {kAdapterConfig, kAdapterWeights, kEncoderState}) names.push_back(prefix + name);
    const bool saves_tokenizer = !experiment_.model.added_tokens.empty() || !experiment_.model.chat_template.empty() ||
                                 (!adapter.init_from.empty() && has_file(adapter.init_from, "tokenizer.json"));
    const bool removes_tokenizer = has_file(folder, kAdapterWeights) && !has_file(folder, "config.json");
    if (!saves_tokenizer && !removes_tokenizer) continue;
    for (const std::string& name : tokenizer_files()) names.push_back(prefix + name);
  }
  return names;
}

/// Whether overwrite_output_dir allows to replace the file: one of an adapter.
bool OutputDirectory::is_released(const std::string& name) const {
  const fs::path file = fs::path(path_) / name;
  return experiment_.training.overwrite_output_dir && file.filename().string().starts_with("adapter_") &&
         has_file(file.parent_path(), kAdapterWeights);
}

void OutputDirectory::check_foreign_files() const {
  std::string foreign;
  const auto add = [&](const std::string& name) { foreign += (foreign.empty() ? "" : ", ") + printable(name); };
  for (const std::string& name : files_to_write())
    if (has_file(path_, name) && !own_files_.contains(name) && !is_released(name)) add(name);
  for (const CheckpointDirectory& checkpoint : checkpoints_in(path_))
    if (!is_checkpoint(checkpoint.path)) add(fs::path(checkpoint.path).filename().string());
  if (!foreign.empty())
    throw ConfigError("[training] output_dir: " + printable_path(path_) + " contains " + foreign +
                      ", which this run would replace and no run is recorded to have written; move it, or name another "
                      "folder");
}

StringList OutputDirectory::claim(const StringList& names) {
  StringList foreign;
  for (const std::string& name : names)
    if (!own_files_.contains(name) && has_file(path_, name))
      foreign.push_back(name);
    else
      own_files_.insert(name);
  write_file((fs::path(path_) / kRecord).string(), nlohmann::json{{"files", own_files_}}.dump(2) + "\n");
  return foreign;
}

/// An adapter that the run starts from must not be in a checkpoint that the run deletes: resuming needs it again.
void OutputDirectory::check_init_source_survives() const {
  std::error_code error;
  for (const NamedAdapter& adapter : experiment_.adapters) {
    if (adapter.init_from.empty()) continue;
    const std::string source = fs::canonical(adapter.init_from, error).string();
    for (const CheckpointDirectory& checkpoint : checkpoints_in(path_))
      if ((source + "/").starts_with(fs::canonical(checkpoint.path, error).string() + "/"))
        throw ConfigError("[adapter] init_from: " + printable_path(adapter.init_from) +
                          " is in a checkpoint of training.output_dir, which this run would delete; name another "
                          "output_dir, or move the checkpoint");
  }
}

void OutputDirectory::check_may_overwrite() const {
  if (experiment_.training.overwrite_output_dir) return check_init_source_survives();
  const bool adapter = has_adapter(path_, experiment_.adapters);
  const auto checkpoints = checkpoints_in(path_);
  if (adapter || std::any_of(checkpoints.begin(), checkpoints.end(),
                             [](const CheckpointDirectory& checkpoint) { return is_checkpoint(checkpoint.path); }))
    throw ConfigError("[training] output_dir: " + printable_path(path_) + " already holds " +
                      (adapter ? "an adapter" : "checkpoints; resume from them with --resume") +
                      "; name another folder, or set training.overwrite_output_dir = true");
}

bool OutputDirectory::contains(const std::string& checkpoint) const {
  std::error_code error;  // links included
  const fs::path real = fs::canonical(checkpoint, error);
  return !error && fs::equivalent(real.parent_path(), path_, error) && !error;
}

void OutputDirectory::prepare(const std::optional<TrainingCheckpoint>& from, const Messages& messages) {
  make_output_dir(path_);
  if (!lock_) {
    lock_.emplace(path_);
    check_may_overwrite();  // another run may have created the folder in the meantime
    check_foreign_files();
  }
  StringList names = files_to_write();
  std::erase_if(names, is_written_at_end);
  claim(names);
  remove_leftovers(from, messages);
}

void OutputDirectory::remove_leftovers(const std::optional<TrainingCheckpoint>& from, const Messages& messages) const {
  clean_output(path_, experiment_.adapters);
  if (!from || !contains(from->path)) {
    std::error_code error;
    fs::remove(fs::path(path_) / "metrics.jsonl", error);
    return rotate_checkpoints(path_, 0, std::nullopt);
  }
  for (const std::string& archived : archive_checkpoints_after(path_, from->step))
    messages.warning("archived a later checkpoint as " + printable_path(archived));
}

void OutputDirectory::check_space_for_checkpoint(const PreparedRun& run) const {
  double bytes = 0;
  for (const auto& [name, tensor] : run.model->trainable())
    bytes += static_cast<double>(tensor.nbytes()) + static_cast<double>(experiment_.optimizer->state_bytes(tensor));
  require_space(path_, static_cast<uint64_t>(bytes), "one checkpoint");
}

void OutputDirectory::rotate(const Best& best, std::optional<int64_t> temporary_limit) const {
  const TrainingOptions& options = experiment_.training;
  if (temporary_limit) remove_temporary_checkpoints(path_, *temporary_limit);
  if (!options.save_total_limit) return;
  const bool keeps_best = options.load_best_model_at_end && best;
  rotate_checkpoints(path_, *options.save_total_limit, keeps_best ? std::optional(best->step) : std::nullopt);
}

}  // namespace peft

#include "experiment/output_directory.h"

#include <torch/types.h>

#include <filesystem>

#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"

namespace peft {

namespace {

namespace fs = std::filesystem;

bool has_file(const fs::path& folder, const char* file) {
  std::error_code error;
  return fs::exists(folder / file, error);
}

/// Whether the folder has a run's adapter, of whatever name: of this run or of another one.
bool has_adapter(const std::string& output_dir, const AdapterStack& adapters) {
  const char* const weights = "adapter_model.safetensors";
  for (const NamedAdapter& adapter : adapters)
    if (has_file(folder_of(adapter, output_dir), weights)) return true;
  if (has_file(output_dir, weights)) return true;
  if (!has_file(output_dir, "trainer_state.json"))
    return false;  // not a run's folder, so its subfolders are something else
  std::error_code error;
  for (auto entry = fs::directory_iterator(output_dir, error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    if (!entry->path().filename().string().starts_with("checkpoint-") && has_file(entry->path(), weights)) return true;
  return false;
}

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
  if (fs::is_directory(path_, error)) lock_.emplace(path_);
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
  if (adapter || !checkpoints_in(path_).empty())
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
  }
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

void OutputDirectory::rotate(const Best& best) const {
  const TrainingOptions& options = experiment_.training;
  if (!options.save_total_limit) return;
  const bool keeps_best = options.load_best_model_at_end && best;
  rotate_checkpoints(path_, *options.save_total_limit, keeps_best ? std::optional(best->step) : std::nullopt);
}

}  // namespace peft

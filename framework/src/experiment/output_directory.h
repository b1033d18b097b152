#pragma once

#include <optional>
#include <string>

#include "experiment/messages.h"
#include "peft/experiment/prepared_run.h"
#include "peft/files/directory_lock.h"
#include "peft/train/checkpoint.h"

namespace peft {

/// The output_dir of a run, locked against other processes from the moment it exists.
class OutputDirectory {
 public:
  /// Locks the folder if it exists. Throws FolderInUse.
  explicit OutputDirectory(const Experiment& experiment);

  /// Throws ConfigError if the folder has an adapter or checkpoints that training.overwrite_output_dir does not
  /// release.
  void check_may_overwrite() const;
  /// Whether a checkpoint's folder is in it, by any path.
  bool contains(const std::string& checkpoint) const;
  /// Creates and locks the folder, if that was not done, and removes what the run would contradict: incomplete files,
  /// and checkpoints and metrics of another run, or those later than `from`, which are archived.
  void prepare(const std::optional<TrainingCheckpoint>& from, const Messages& messages);
  /// Throws ResourceError if the disk has no space for one checkpoint.
  void check_space_for_checkpoint(const PreparedRun& run) const;
  /// Deletes old checkpoints beyond save_total_limit, but not the best one if it is to be the result.
  void rotate(const Best& best) const;

 private:
  void check_init_source_survives() const;
  void remove_leftovers(const std::optional<TrainingCheckpoint>& from, const Messages& messages) const;
  const Experiment& experiment_;
  const std::string& path_;
  std::optional<DirectoryLock> lock_;
};

}  // namespace peft

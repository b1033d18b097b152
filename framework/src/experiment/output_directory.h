#pragma once

#include <optional>
#include <set>
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
  /// Throws ConfigError if the run would replace or remove files or checkpoints that no run has written.
  void check_foreign_files() const;
  /// Whether a checkpoint's folder is in it, by any path.
  bool contains(const std::string& checkpoint) const;
  /// Records that the run writes these files, and returns those that are there without a record: they are not a run's.
  StringList claim(const StringList& names);
  /// Creates and locks the folder, if that was not done, records what the run writes from its start, and removes what
  /// the run would contradict: incomplete files, and checkpoints and metrics of another run, or those later than
  /// `from`, which are archived.
  void prepare(const std::optional<TrainingCheckpoint>& from, const Messages& messages);
  /// Throws ResourceError if the disk has no space for one checkpoint.
  void check_space_for_checkpoint(const PreparedRun& run) const;
  /// Deletes old checkpoints beyond save_total_limit, but not the best one if it is to be the result, and temporary
  /// ones beyond `temporary_limit`, if it is given.
  void rotate(const Best& best, std::optional<int64_t> temporary_limit) const;

 private:
  void check_init_source_survives() const;
  StringList files_to_write() const;  ///< names in the folder that the run may write or remove
  bool is_released(const std::string& name) const;
  void remove_leftovers(const std::optional<TrainingCheckpoint>& from, const Messages& messages) const;
  const Experiment& experiment_;
  const std::string& path_;
  std::optional<DirectoryLock> lock_;
  std::set<std::string> own_files_;  ///< files and checkpoints that runs have written
};

}  // namespace peft

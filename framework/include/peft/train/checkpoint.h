#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "peft/adapters/stack.h"
#include "peft/base/export.h"
#include "peft/runtime/tensors.h"

namespace peft {

/// State needed to resume a run, excluding adapter weights: the state of each component by its name ("optimizer").
using RunState = std::map<std::string, StateDict>;

/// The snapshot with the lowest evaluation loss.
struct BestSnapshot {
  int64_t step;
  double loss;
};
using Best = std::optional<BestSnapshot>;

/// The state of a run between two steps.
struct Snapshot {
  int64_t step = 0;  ///< steps done
  RunState states;   ///< the run's own tensors, not copies: use them before the next step
  Best best;
  bool finite = true;      ///< the last step was finite, which shows that earlier checkpoints can be resumed from
  bool temporary = false;  ///< requested by save_every_minutes: to be deleted when the adapter is written
};

/// A folder `checkpoint-<step>`.
struct CheckpointDirectory {
  int64_t step;
  std::string path;
};
/// The path of a step's checkpoint in `output_dir`.
PEFT_API std::string checkpoint_folder(const std::string& output_dir, int64_t step);
/// The checkpoints in `output_dir`, newest first. Does not read their contents.
PEFT_API std::vector<CheckpointDirectory> checkpoints_in(const std::string& output_dir);

/// Writes `checkpoint-<step>` into `output_dir`: the adapters in the formats of HF PEFT and of resume_adapters(), a
/// safetensors file for each component with a state, `checkpoint.json` with `about` and whether the checkpoint is
/// temporary, the texts of `files`, and manifest.json last. The folder appears atomically. Throws ResourceError; if the
/// disk has too little space, before anything is written. Returns the path.
PEFT_API std::string write_checkpoint(const std::string& output_dir, const Snapshot& snapshot,
                                      const AdapterStack& adapters, const Model& model,
                                      const nlohmann::ordered_json& about,
                                      const std::map<std::string, std::string>& files);

/// A checkpoint whose files match its manifest.
struct TrainingCheckpoint {
  std::string path;
  int64_t step = 0;
  RunState states;
  std::shared_ptr<const nlohmann::json> about;  ///< as given to write_checkpoint
};
/// Throws InputError if a file does not match the manifest or is invalid.
PEFT_API TrainingCheckpoint read_checkpoint(const std::string& path);

/// Whether a folder `checkpoint-<step>` is a run's, intact or not: another program's has no checkpoint.json.
PEFT_API bool is_checkpoint(const std::string& path);

/// Deletes the oldest checkpoints beyond `limit` (0: all), except that of `keep_step` and the newest one, as HF's
/// Trainer does with save_total_limit. A folder is renamed before it is deleted, so that no partial checkpoint is ever
/// found.
PEFT_API void rotate_checkpoints(const std::string& output_dir, int64_t limit, std::optional<int64_t> keep_step);
/// Deletes the temporary checkpoints except the newest `limit` of them, in the same way.
PEFT_API void remove_temporary_checkpoints(const std::string& output_dir, int64_t limit);
/// Archives checkpoints later than `step`, intact or not, because a resumed run may differ from there: appends a suffix
/// to their names, with a number if the name is taken. Returns their new paths.
PEFT_API std::vector<std::string> archive_checkpoints_after(const std::string& output_dir, int64_t step);
/// Removes partly written and partly deleted files of killed runs, in the folder and in those of its adapters.
PEFT_API void clean_output(const std::string& output_dir, const AdapterStack& adapters);

/// Throws ResourceError, which names `what`, if the disk of `folder` has less than `bytes` of free space.
PEFT_API void require_space(const std::string& folder, uint64_t bytes, const std::string& what);

}  // namespace peft

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

/// What a run needs to go on, beside its adapters: the state of each part by its name ("optimizer").
using RunState = std::map<std::string, StateDict>;

/// Of the snapshots that an evaluation came with, the one of least loss.
struct BestSnapshot {
  int64_t step;
  double loss;
};
using Best = std::optional<BestSnapshot>;

/// A moment of a run, between two steps.
struct Snapshot {
  int64_t step = 0;  ///< steps done
  RunState states;   ///< tensors of the run itself: to be used before the next step
  Best best;
  bool finite = true;  ///< the step before it was taken and finite: whatever was saved before that can be gone on from
};

/// A folder `checkpoint-<step>`.
struct CheckpointDirectory {
  int64_t step;
  std::string path;
};
/// Where that of a step lies in `output_dir`.
PEFT_API std::string checkpoint_folder(const std::string& output_dir, int64_t step);
/// Those in `output_dir`, newest first. Nothing in them is looked at.
PEFT_API std::vector<CheckpointDirectory> checkpoints_in(const std::string& output_dir);

/// Writes `checkpoint-<step>` into `output_dir`: the adapters as HF PEFT reads them and as resume_adapters does, a
/// safetensors file for each part that has a state, `checkpoint.json` with `about`, the texts of `files`, and
/// manifest.json last. It appears whole or not at all. Throws ResourceError, before anything is written where the disk
/// has not the space. Returns its path.
PEFT_API std::string write_checkpoint(const std::string& output_dir, const Snapshot& snapshot,
                                      const AdapterStack& adapters, const Model& model,
                                      const nlohmann::ordered_json& about,
                                      const std::map<std::string, std::string>& files);

/// A checkpoint whose files are as its manifest says.
struct TrainingCheckpoint {
  std::string path;
  int64_t step = 0;
  RunState states;
  std::shared_ptr<const nlohmann::json> about;  ///< as given to write_checkpoint
};
/// Throws InputError where the manifest does not hold or a file is not in order.
PEFT_API TrainingCheckpoint read_checkpoint(const std::string& path);

/// Deletes the oldest of `output_dir` beyond `limit` (0: all), but never the one of `keep_step` nor the newest, as HF's
/// Trainer does with save_total_limit. What is being deleted is no checkpoint from the first moment on.
PEFT_API void rotate_checkpoints(const std::string& output_dir, int64_t limit, std::optional<int64_t> keep_step);
/// Renames those later than `step`, whole or not, to `checkpoint-<step>.aside`, or the first `….aside-<n>` that is
/// free: they are of a run that goes on otherwise. Returns their new paths.
PEFT_API std::vector<std::string> archive_checkpoints_after(const std::string& output_dir, int64_t step);
/// Takes away what runs that were killed left half written or half deleted, in the folder and in its adapters'.
PEFT_API void clean_output(const std::string& output_dir, const AdapterStack& adapters);

/// Throws ResourceError where the disk of `folder` has less than `bytes` for `what`.
PEFT_API void require_space(const std::string& folder, uint64_t bytes, const std::string& what);

}  // namespace peft

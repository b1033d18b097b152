#pragma once

#include <optional>
#include <string>
#include <vector>

#include "peft/base/export.h"
#include "peft/experiment/experiment.h"
#include "peft/train/callbacks.h"
#include "peft/train/train.h"

namespace peft {

struct RunOptions {
  /// Folder of the checkpoint to resume from, or "" for the newest intact one of output_dir; a run without checkpoints
  /// starts from scratch. Absent: a new run.
  std::optional<std::string> resume;
};

/// Trains an experiment and writes its output_dir: the adapters, metrics.jsonl, trainer_state.json, resolved.toml, the
/// model card and, with save_every, checkpoints. The callbacks are called in order and must outlive the call. If one
/// stops the run, a checkpoint is saved, no adapter is written, and `stopped` is set in the result. Nothing is printed.
///
/// Installs libpeft's CPU allocator and seeds libtorch's global random generator. Throws peft::Error: ConfigError
/// before anything is loaded for an output_dir that is not free or a checkpoint of other settings, InputError,
/// PluginError, ResourceError if memory or disk do not suffice, DivergedError. The exceptions of callbacks pass
/// through.
PEFT_API TrainingResult run(Experiment experiment, const std::vector<TrainingCallback*>& callbacks = {},
                            const RunOptions& options = {});

}  // namespace peft

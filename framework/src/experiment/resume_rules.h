#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "experiment/messages.h"
#include "peft/experiment/prepared_run.h"
#include "peft/train/checkpoint.h"

namespace peft {

/// What a checkpoint records about its run in addition to the tensors: plugins, threads, hashes of the data.
nlohmann::ordered_json about_run(const Experiment& experiment, const PreparedRun& run);

/// The checkpoint `from`, or if it is "" the newest intact one of `output_dir`; warns of those that it skips. Nothing
/// if `output_dir` has no checkpoint. Throws InputError if none is intact.
std::optional<TrainingCheckpoint> find_checkpoint(const std::string& from, const std::string& output_dir,
                                                  const Messages& messages);

/// The best snapshot so far of the checkpoint's run.
Best best_of(const TrainingCheckpoint& checkpoint);
/// Throws InputError if the best checkpoint, which is to be the result, is not intact in `output_dir`.
void check_best_checkpoint(const Best& best, const std::string& output_dir);

/// Throws ConfigError, with the differences, if the experiment has settings with which the run would continue
/// otherwise.
void check_same_settings(const TrainingCheckpoint& checkpoint, const Experiment& experiment);

/// Multiplies fp32 matrices with the library that the checkpoint's run used, so that the bits stay the same, unless the
/// user chose one; without a checkpoint, with this machine's.
void resume_fp32_products(const std::optional<TrainingCheckpoint>& from);

/// `about`: about_run() of now. Throws InputError if the data, the base's configuration or the adapters of init_from
/// have changed; warns of changes that may alter the last bits: threads, processor,
/// library of fp32 products, versions.
void check_same_environment(const TrainingCheckpoint& checkpoint, const nlohmann::ordered_json& about,
                            const Messages& messages);

}  // namespace peft

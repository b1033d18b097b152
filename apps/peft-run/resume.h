#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "experiment.h"
#include "peft/train/checkpoint.h"

/// What a checkpoint remembers of the run beside its tensors: plugins, threads, hashes of the data.
nlohmann::ordered_json about_run(const Experiment& experiment, const Workload& work);

/// The checkpoint to go on from: `from`, or the newest of `output_dir` that is whole; those passed over are told on
/// stderr. Nothing where `output_dir` holds none at all: the run begins. Throws InputError where none is whole.
std::optional<peft::TrainingCheckpoint> find_checkpoint(const std::string& from, const std::string& output_dir);

/// The best snapshot so far of the checkpoint's run.
peft::Best best_of(const peft::TrainingCheckpoint& checkpoint);
/// Throws InputError where it, which is to be the result, is not whole in `output_dir` any more.
void require_best(const peft::Best& best, const std::string& output_dir);

/// Throws ConfigError, with the difference, where the experiment would not go on as the checkpoint's run would have.
void require_same_run(const peft::TrainingCheckpoint& checkpoint, const Experiment& experiment);

/// `about`: about_run() of now. Throws InputError where data, the base's configuration or the adapters that it began
/// from are not what they were; warns, on stderr, of what may change last bits: threads, processor, versions.
void require_same_ground(const peft::TrainingCheckpoint& checkpoint, const nlohmann::ordered_json& about);

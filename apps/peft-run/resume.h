#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "experiment.h"
#include "peft/snapshot.h"

/// What a checkpoint remembers of the run beside its tensors: plugins, threads, hashes of the data.
nlohmann::ordered_json about_run(const Experiment& experiment, const Workload& work);

/// The checkpoint to go on from: `from`, or the newest of `output_dir` that is whole; those passed over are told on
/// stderr. Nothing where `output_dir` holds none at all: the run begins. Throws InputError where none is whole.
std::optional<peft::ReadCheckpoint> find_checkpoint(const std::string& from, const std::string& output_dir);

/// Throws ConfigError, with the difference, where the experiment would not go on as the checkpoint's run would have.
void require_same_run(const peft::ReadCheckpoint& checkpoint, const Experiment& experiment);

/// Gives the adapter its tensors. Throws InputError where base or data are not what they were; warns, on stderr, of
/// what may change last bits: threads, versions.
void take_over(const peft::ReadCheckpoint& checkpoint, const Experiment& experiment, const Workload& work);

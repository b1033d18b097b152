#pragma once

#include <memory>
#include <optional>
#include <string>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/experiment/experiment.h"
#include "peft/files/pretrained_model.h"
#include "peft/models/model.h"
#include "peft/runtime/memory.h"
#include "peft/text/text.h"

namespace peft {

/// What an experiment works on: model and data are loaded, the adapters are attached, and the optimizer has their
/// parameters. Preparing an experiment changes it, so do it once.
struct PEFT_API PreparedRun {
  /// `resume_from`: folder of the checkpoint whose adapters to load, or "" for new ones.
  explicit PreparedRun(Experiment& experiment, const std::string& resume_from = "");

  torch::Device device;
  MemoryMeter memory;
  std::shared_ptr<const PretrainedModel> base;
  LazyText text;
  Dataset data;
  std::optional<Dataset> eval_data;
  std::shared_ptr<CausalLm> model;
};

/// The largest batch of the training steps and that of the evaluations.
struct PeakBatches {
  PeakBatch training, evaluation;
};
/// With these training options. Considers the first ten epochs only, because a run may be endless.
PEFT_API PeakBatches peak_batches(const Experiment& experiment, const PreparedRun& run, const TrainingOptions& options);

/// Totals of all steps.
struct StepCounts {
  int64_t steps = 0, tokens = 0, num_target_tokens = 0;
  bool is_estimate = false;  ///< the tokens of the last steps are taken to be as many as those of the steps before
  PeakBatches peak = {};
};
/// Counts the first ten epochs, and at least 100,000 steps.
PEFT_API StepCounts count_steps(const Experiment& experiment, const PreparedRun& run);

/// Sets the model's activation checkpointing as [memory] asks for. Returns a line that says how many layers recompute,
/// or "" if none does. Throws ResourceError if the budget cannot be met.
PEFT_API std::string apply_memory_plan(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak);

/// Lines for people, without line breaks.
/// Optimizer, scheduler, clipping, precision and objective with their options, and the examples of a step.
PEFT_API StringList describe_parts(const Experiment& experiment);
/// Warnings: what is allowed but hardly meant.
PEFT_API StringList cautions(const Experiment& experiment, const PreparedRun& run);
PEFT_API std::string describe_model(const Experiment& experiment,
                                    const PreparedRun& run);          ///< path, type, dtype, device
PEFT_API StringList describe_vocabulary(const PreparedRun& run);      ///< rows and added tokens, if there are any
PEFT_API StringList describe_data(const PreparedRun& run);            ///< one line per data set
PEFT_API StringList describe_adapters(const AdapterStack& adapters);  ///< names and methods, if there are several
/// What to know about the files of the model and of init_from: contradictions and what of them was ignored.
PEFT_API StringList describe_notes(const Experiment& experiment, const PreparedRun& run);
/// Examples, tokens, and what was truncated, skipped or empty.
PEFT_API std::string describe_dataset(const Dataset& data);
/// What a user should know about the data before training: more than a tenth of it is truncated or skipped, answers are
/// empty, or examples are longer than the model's positions. `name` is what the lines call the data.
PEFT_API StringList dataset_warnings(const Dataset& data, const Model& model, const std::string& name);
/// Those of both data sets, and why the tokens could not be cached.
PEFT_API StringList data_warnings(const PreparedRun& run);

}  // namespace peft

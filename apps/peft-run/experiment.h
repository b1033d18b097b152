#pragma once

#include <memory>
#include <optional>
#include <string>

#include "peft/adapters/stack.h"
#include "peft/data/token_cache.h"
#include "peft/files/pretrained_model.h"
#include "peft/planning/memory_estimate.h"
#include "peft/plugin/plugins.h"
#include "peft/text/text.h"
#include "peft/train/train.h"

/// The [model] table.
struct ModelOptions {
  std::string path;
  peft::StringList added_tokens;  ///< as HF's tokenizer.add_tokens takes them
};

/// An experiment as written: read, checked, its plugins made. Nothing is loaded yet.
struct Experiment {
  /// `sets` go over the file. Throws every error of the file at once.
  Experiment(const std::string& path, const peft::StringList& sets);

  peft::Document document;
  ModelOptions model;
  peft::DataOptions data;
  peft::TrainingOptions training;
  peft::MemoryOptions memory;
  std::unique_ptr<peft::Plugins> plugins;
  peft::AdapterStack adapters;
  std::unique_ptr<peft::Optimizer> optimizer;
  std::unique_ptr<peft::Scheduler> scheduler;
  std::unique_ptr<peft::GradientClipping> clipping;
  std::unique_ptr<peft::Precision> precision;
};

/// What an experiment works on. The adapters are attached and the optimizer holds their parameters.
struct Workload {
  /// `resume_from`: a checkpoint's folder whose adapters go on, or "".
  explicit Workload(Experiment& experiment, const std::string& resume_from = "");

  torch::Device device;
  peft::MemoryMeter memory;
  std::shared_ptr<const peft::PretrainedModel> checkpoint;
  peft::LazyText text;
  peft::Dataset data;
  std::optional<peft::Dataset> eval_data;
  std::shared_ptr<peft::Model> model;
};

/// The largest batch of a run's steps, and that of its evaluations.
struct LargestBatches {
  peft::PeakBatch trained, evaluated;
};

/// What the run's steps hold, and the largest of its micro-batches.
struct StepCounts {
  int64_t steps = 0, tokens = 0, num_target_tokens = 0;
  LargestBatches largest = {};
};
StepCounts count_steps(const Experiment& experiment, const Workload& work);
/// The largest with these options, of the first passes over the data: a run may be endless.
LargestBatches largest_batches(const Experiment& experiment, const Workload& work,
                               const peft::TrainingOptions& options);

/// Arranges the model's memory as the experiment wants it; a line about it, or "" where everything is kept.
std::string arranged_memory(const Experiment& experiment, const Workload& work, const LargestBatches& largest);

/// A line about the tokens that the vocabulary was given, with their ids, or "".
std::string tokens_text(const Workload& work);
/// What was read: examples, tokens, and what was cut or skipped; a line for each data set.
std::string data_text(const Workload& work);
/// The same of one data set, without its name.
std::string data_counts(const peft::Dataset& data);
/// Where there are several, a line that names them; else "".
std::string adapters_text(const peft::AdapterStack& adapters);

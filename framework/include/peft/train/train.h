#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "peft/adapters/adapter.h"
#include "peft/adapters/calibration.h"
#include "peft/base/export.h"
#include "peft/base/format_count.h"
#include "peft/data/sampler.h"
#include "peft/models/causal_lm.h"
#include "peft/runtime/device.h"
#include "peft/runtime/memory.h"
#include "peft/train/calibration_batches.h"
#include "peft/train/callbacks.h"
#include "peft/train/checkpoint.h"
#include "peft/train/clipping.h"
#include "peft/train/evaluate.h"
#include "peft/train/hashes.h"
#include "peft/train/objective.h"
#include "peft/train/optimizer.h"
#include "peft/train/options.h"
#include "peft/train/parameter_counts.h"
#include "peft/train/precision.h"
#include "peft/train/scheduler.h"
#include "peft/train/step_sampler.h"

namespace peft {

/// Everything that the training loop uses; all references must outlive it.
struct TrainingSession {
  CausalLm& model;
  Optimizer& optimizer;  ///< with the adapters' param groups added
  Scheduler& scheduler;
  GradientClipping& clipping;
  Precision& precision;
  Objective& objective;
  std::vector<Adapter*> adapters;  ///< in order, for their training hooks; empty if the caller trains other parameters
  const Dataset& data;
  const Dataset* eval_data = nullptr;
  bool packing = false;
  int64_t max_length = 512;
  TrainingOptions options;
  MemoryMeter& memory;
  std::vector<TrainingCallback*> callbacks;
  std::function<void(const Snapshot&)> save = [](const Snapshot&) {
  };  ///< called every save_every steps or save_every_minutes, with save_every at the last step, and at a stop
  /// Of the snapshot whose adapters the model has; null: start from scratch. train() empties it once the components
  /// have their states, so that memory holds them once.
  RunState* resume = nullptr;
};

/// Throws ConfigError if the scheduler depends on evaluations and the run has none before its end.
PEFT_API void require_evaluations(const Scheduler& scheduler, const TrainingOptions& options, bool eval_data);

/// What the parameters of a run show of its learning.
struct LearningResult {
  std::size_t tensors = 0;  ///< that were trained
  StringList unchanged;     ///< those that are bit-identical to the start
  std::string problem;      ///< a sentence if nothing was learned, or nothing at the end; else ""
  PEFT_API std::string text()
      const;  ///< "N of the adapter's M tensors are different from the start", and which are not
};

struct TrainingResult {
  int64_t steps = 0, skipped = 0, nonfinite = 0, tokens = 0;
  double loss = 0;  ///< mean of all finite steps
  double epochs = 0, seconds = 0;
  double seconds_after_first = 0;   ///< of all steps but the first, without evaluations and checkpoints
  std::optional<double> eval_loss;  ///< the last one
  std::vector<std::pair<std::string, double>>
      profile;            ///< seconds by component of all steps but the first, if options.profile
  std::string base_hash;  ///< XXH3-128 of the frozen base, equal before and after
  LearningResult learning;
  Best best;             ///< as in Snapshot
  bool stopped = false;  ///< before the last step, because a callback asked for it
};

/// Trains; afterwards the parameters have the values to save (Optimizer::eval). Throws DivergedError if more than
/// max_nonfinite_steps steps are not finite or the result is not; InputError if a step has nothing to learn from;
/// ConfigError if nothing is trainable; PluginError if the first step shows that a plugin does not keep its contract: a
/// tensor that requires a gradient is not a parameter, a parameter gets none, a result has another dtype or shape;
/// std::logic_error if a gradient reaches the base or if the base changed.
PEFT_API TrainingResult train(TrainingSession& run);

}  // namespace peft

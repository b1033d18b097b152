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
#include "peft/models/decoder.h"
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

/// All that the loop needs; everything outlives it.
struct TrainingSession {
  Model& model;
  Optimizer& optimizer;  ///< with the adapter's groups added
  Scheduler& scheduler;
  GradientClipping& clipping;
  Precision& precision;
  Objective& objective;
  std::vector<Adapter*> adapters;  ///< told of each step, in order; none where the caller trains parameters of its own
  const Dataset& data;
  const Dataset* eval_data = nullptr;
  bool packing = false;
  int64_t max_length = 512;
  TrainingOptions options;
  MemoryMeter& memory;
  std::vector<TrainingCallback*> callbacks;
  std::function<void(const Snapshot&)> save = [](const Snapshot&) {
  };  ///< every save_every steps, at the last, at a stop
  const RunState* resume = nullptr;  ///< of a snapshot whose adapters the model has; null: from the beginning
};

/// Throws ConfigError where the scheduler follows evaluations, and the run has none before its end.
PEFT_API void require_evaluations(const Scheduler& scheduler, const TrainingOptions& options, bool eval_data);

struct TrainingResult {
  int64_t steps = 0, skipped = 0, nonfinite = 0, tokens = 0;
  double loss = 0;  ///< mean of all steps that were finite
  double epochs = 0, seconds = 0;
  double seconds_after_first = 0;                       ///< of the steps alone, but the first
  std::optional<double> eval_loss;                      ///< the last one
  std::vector<std::pair<std::string, double>> profile;  ///< seconds by part of all steps but the first, if asked for
  std::string base_hash;                                ///< XXH3-128 of the frozen base, equal before and after
  Best best;                                            ///< as in Snapshot
  bool stopped = false;                                 ///< before the last step, because a callback asked for it
};

/// Trains, and leaves in the parameters what the optimizer wants saved. Throws DivergedError where more steps than
/// max_nonfinite_steps are not finite, or what was learned is not; InputError where a step has no supervised token;
/// ConfigError where nothing trains; std::logic_error where a gradient reaches the base, misses an adapter tensor, or
/// the base changed.
PEFT_API TrainingResult train(TrainingSession& run);

}  // namespace peft

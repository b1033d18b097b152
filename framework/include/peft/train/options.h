#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "peft/base/export.h"
#include "peft/options/options.h"

namespace peft {

/// The [training] table.
struct TrainingOptions {
  std::string output_dir;
  double epochs = 1;                        ///< passes over the data, may be a fraction
  std::optional<int64_t> max_steps;         ///< optimizer steps; overrides epochs
  int64_t batch_size = 4;                   ///< examples per micro-batch (packing: rows of max_length tokens)
  int64_t gradient_accumulation_steps = 1;  ///< micro-batches per step
  int64_t seed = 42;
  int64_t log_every = 10;                   ///< steps
  int64_t eval_every = 0;                   ///< steps; 0: only at the end
  int64_t save_every = 0;                   ///< steps between checkpoints, and one at the end; 0: save_every_minutes
  double save_every_minutes = 15;           ///< minutes between temporary checkpoints; 0: none
  std::optional<int64_t> save_total_limit;  ///< maximum number of checkpoints
  bool load_best_model_at_end = false;      ///< the result is the checkpoint with the lowest evaluation loss
  int64_t max_nonfinite_steps = 5;          ///< maximum number of non-finite steps; one more ends the run
  std::string device = "auto";
  bool fused = true;     ///< false: every layer runs its own forward, to check the fused paths
  bool profile = false;  ///< measure how the time of the steps is spent
  bool overwrite_output_dir = false;
};
PEFT_API TrainingOptions read_training_options(Options& in);

}  // namespace peft

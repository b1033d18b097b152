#pragma once

#include <cstdint>
#include <string>

#include "peft/base/export.h"
#include "peft/options/options.h"
#include "peft/runtime/memory.h"

namespace peft {

struct StepReport {
  int64_t step = 0, total_steps = 0;  ///< optimizer steps, from 1
  double epoch = 0;
  double loss = 0;       ///< mean over the step's supervised tokens
  double mean_loss = 0;  ///< mean of the steps since the last logged one
  double lr = 0, grad_norm = 0;
  int64_t tokens = 0, num_target_tokens = 0;  ///< of the step
  double seconds = 0;                         ///< of the step
  double tokens_per_second = 0;               ///< since the last logged step
  double seconds_left = 0;
  MemoryStats memory;     ///< now; peaks are those of the run so far
  int64_t skipped = 0;    ///< steps skipped so far because the loss scale was too large
  int64_t nonfinite = 0;  ///< and because something was not finite
  bool logged = false;    ///< every log_every steps, the first and the last
};

/// A step that was not taken, because what it computed is not finite.
struct NonFiniteStep {
  int64_t step = 0, total_steps = 0;
  double epoch = 0;
  std::string what;       ///< "the loss is nan"
  StringList examples;    ///< "file:line": of the micro-batch at fault, or of all where that is not known
  int64_t tokens = 0;     ///< of the step
  int64_t nonfinite = 0;  ///< such steps so far, this one among them
};

struct EvalReport {
  int64_t step = 0;
  double epoch = 0, loss = 0, seconds = 0;
};

/// Who watches a run. Called from the loop's own thread.
class PEFT_API TrainingCallback {
 public:
  virtual ~TrainingCallback();
  virtual void on_step_end(const StepReport&) {}
  virtual void on_nonfinite_step(const NonFiniteStep&) {}  ///< in stepped's place
  virtual void on_evaluate(const EvalReport&) {}
};

}  // namespace peft

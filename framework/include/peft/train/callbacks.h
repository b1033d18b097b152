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
  double loss = 0;                            ///< mean over the step's target tokens
  double mean_loss = 0;                       ///< mean of the steps since the last logged one
  double lr = 0, grad_norm = 0;               ///< before clipping; infinite in a step that overflowed
  int64_t tokens = 0, num_target_tokens = 0;  ///< of the step
  double seconds = 0;                         ///< of the step
  double tokens_per_second = 0;               ///< since the last logged step
  double seconds_left = 0;
  MemoryStats memory;     ///< now; peaks are those of the run so far
  int64_t skipped = 0;    ///< steps skipped so far because the loss scale was too large
  int64_t nonfinite = 0;  ///< steps skipped so far because something was not finite
  bool logged = false;    ///< every log_every steps, the first and the last
};

/// A step that was skipped because something that it computed is not finite.
struct NonFiniteStep {
  int64_t step = 0, total_steps = 0;
  double epoch = 0;
  std::string what;       ///< "the loss is nan"
  StringList examples;    ///< "file:line": of the micro-batch that caused it, or of all if that is unknown
  int64_t tokens = 0;     ///< of the step
  int64_t nonfinite = 0;  ///< such steps so far, including this one
};

struct EvalReport {
  int64_t step = 0;
  double epoch = 0, loss = 0, seconds = 0;
};

/// What run() is about to do.
struct RunStart {
  std::string output_dir;
  int64_t first_step = 1;  ///< later than 1 in a resumed run
  StringList description;  ///< lines for people: model, vocabulary, data, adapters, parameters, memory plan
};

/// A checkpoint that was written.
struct SaveReport {
  int64_t step = 0;
  std::string path;  ///< of the folder
};

struct TrainingResult;

/// What run() has done.
struct RunEnd {
  const TrainingResult& result;
  const MemoryMeter& memory;
  StringList adapters;     ///< folders of the saved adapters; empty if the run was stopped
  bool can_merge = false;  ///< the adapters can be expressed as weights, judged by one module
  std::string checkpoint;  ///< folder from which a stopped run resumes; "" if the run has finished
};

enum class MessageLevel : uint8_t { info, warning };

/// What a callback asks of the loop, as transformers' TrainerControl.
struct TrainingControl {
  bool should_stop = false;  ///< finish this step, save a checkpoint and return; without effect in the last step
};

/// Observes a run and may stop it. Called on the thread that trains; an exception ends the run and reaches the caller.
/// The loop (train()) calls the three functions that take a TrainingControl, run() also the others.
class PEFT_API TrainingCallback {
 public:
  virtual ~TrainingCallback();
  virtual void on_run_begin(const RunStart&) {}  ///< everything is loaded, the first step is next
  virtual void on_step_end(const StepReport&, TrainingControl&) {}
  virtual void on_nonfinite_step(const NonFiniteStep&, TrainingControl&) {}  ///< instead of on_step_end
  virtual void on_evaluate(const EvalReport&, TrainingControl&) {}
  virtual void on_save(const SaveReport&) {}
  virtual void on_run_end(const RunEnd&) {}  ///< the results are written; not called after an error
  virtual void on_message(MessageLevel, const std::string& /*text*/) {}  ///< one line, without a line break
};

}  // namespace peft

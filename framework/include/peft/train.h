#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "peft/adapter.h"
#include "peft/calibration.h"
#include "peft/clipping.h"
#include "peft/data/sampler.h"
#include "peft/export.h"
#include "peft/memory.h"
#include "peft/model/decoder.h"
#include "peft/optimizer.h"
#include "peft/precision.h"
#include "peft/scheduler.h"
#include "peft/snapshot.h"

namespace peft {

/// The [training] table.
struct TrainingOptions {
  std::string output_dir;
  double epochs = 1;                        ///< passes over the data, fractions allowed
  std::optional<int64_t> max_steps;         ///< optimizer steps; overrides epochs
  int64_t batch_size = 4;                   ///< examples of a micro-batch (packing: rows of max_length tokens)
  int64_t gradient_accumulation_steps = 1;  ///< micro-batches of a step
  int64_t seed = 42;
  int64_t log_every = 10;                   ///< steps
  int64_t eval_every = 0;                   ///< steps; 0: only at the end
  int64_t save_every = 0;                   ///< steps between checkpoints, and one at the end; 0: none
  std::optional<int64_t> save_total_limit;  ///< checkpoints kept
  bool load_best_model_at_end = false;      ///< the result is the checkpoint of least evaluation loss
  int64_t max_nonfinite_steps = 5;          ///< skipped because something is not finite; one more ends the run
  std::string device = "auto";
  bool fused = true;     ///< false: every layer runs its own forward, as a check of the fused paths
  bool profile = false;  ///< measure where the time of the steps goes
  bool overwrite_output_dir = false;
};
PEFT_API TrainingOptions read_training_options(Options& in);

/// "auto": an accelerator if this libtorch has one, else the CPU. Throws ConfigError for what is not there.
PEFT_API torch::Device choose_device(const std::string& name);

/// 1234567 as "1,234,567", for people.
PEFT_API std::string grouped(int64_t value);

/// How many parameters train, and how many there are (HF PEFT counts the adapter among them).
struct Census {
  int64_t trainable = 0, all = 0;
  PEFT_API std::string text() const;  ///< HF's line "trainable params: … || all params: … || trainable%: …"
};
PEFT_API Census census(const Model& model);

/// The optimizer steps of a run: their micro-batches, as indices of examples. A pure function of data and options.
class PEFT_API Steps {
 public:
  struct Step {
    double epoch = 0;  ///< passes finished when it ends
    std::vector<std::vector<std::size_t>> batches;
  };
  Steps(const Dataset& data, const TrainingOptions& options, bool packing, int64_t max_length);
  int64_t total() const { return total_; }
  Step next();
  State state() const;  ///< epoch, and batches of it taken
  void load(const State& state);

 private:
  void begin_epoch();
  const Dataset& data_;
  const TrainingOptions& options_;
  bool packing_;
  int64_t max_length_, total_ = 0, epoch_ = 0;
  std::vector<std::vector<std::size_t>> batches_;
  std::size_t at_ = 0;
};

struct StepReport {
  int64_t step = 0, total_steps = 0;  ///< optimizer steps, from 1
  double epoch = 0;
  double loss = 0;       ///< mean over the step's supervised tokens
  double mean_loss = 0;  ///< mean of the steps since the last logged one
  double lr = 0, grad_norm = 0;
  int64_t tokens = 0, supervised = 0;  ///< of the step
  double seconds = 0;                  ///< of the step
  double tokens_per_second = 0;        ///< since the last logged step
  double seconds_left = 0;
  MemoryStats memory;     ///< now; peaks are those of the run so far
  int64_t skipped = 0;    ///< steps skipped so far because the loss scale was too large
  int64_t nonfinite = 0;  ///< and because something was not finite
  bool logged = false;    ///< every log_every steps, the first and the last
};

/// A step that was not taken, because what it computed is not finite.
struct FaultReport {
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
class PEFT_API Observer {
 public:
  virtual ~Observer();
  virtual void stepped(const StepReport&) {}
  virtual void faulted(const FaultReport&) {}  ///< in stepped's place
  virtual void evaluated(const EvalReport&) {}
};

/// All that the loop needs; everything outlives it.
struct Run {
  Model& model;
  Optimizer& optimizer;  ///< with the adapter's groups added
  Scheduler& scheduler;
  GradientClipper& clipper;
  Precision& precision;
  std::vector<Adapter*> adapters;  ///< told of each step, in order; none where the caller trains parameters of its own
  const Dataset& data;
  const Dataset* eval_data = nullptr;
  bool packing = false;
  int64_t max_length = 512;
  TrainingOptions options;
  MemoryMeter& memory;
  std::vector<Observer*> observers;
  std::function<void(const Snapshot&)> save = [](const Snapshot&) {
  };  ///< every save_every steps, at the last, at a stop
  std::function<bool()> stop = [] { return false; };  ///< asked after each step; true: save and leave
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
  bool stopped = false;                                 ///< before the last step, because `stop` said so
};

/// Trains, and leaves in the parameters what the optimizer wants saved. Throws DivergedError where more steps than
/// max_nonfinite_steps are not finite, or what was learned is not; InputError where a step has no supervised token;
/// ConfigError where nothing trains; std::logic_error where a gradient reaches the base, misses an adapter tensor, or
/// the base changed.
PEFT_API TrainingResult train(Run& run);

/// Scheduler::lr(); a failure of it names its file.
PEFT_API double learning_rate(const Scheduler& scheduler, int64_t step, int64_t total_steps, double base_lr);

/// Over the supervised tokens of a data set.
struct Evaluation {
  double loss = 0;      ///< mean cross-entropy, in nats
  double accuracy = 0;  ///< share of tokens that the model finds likeliest
  int64_t tokens = 0;
  PEFT_API double perplexity() const;  ///< exp(loss)
};
/// Without gradients or dropout. Throws InputError where there is no supervised token.
PEFT_API Evaluation evaluate(Model& model, Precision& precision, const Dataset& data, int64_t batch_size);

/// What a method may look at before it is attached: the batches of the run's first pass. All of it outlives the result.
PEFT_API Calibration calibration(const Model& model, Precision& precision, const Dataset& data,
                                 const TrainingOptions& options, bool packing, int64_t max_length);

/// A batch on the model's device.
PEFT_API Input to_input(const Batch& batch, torch::Device device);
PEFT_API Tensor to_labels(const Batch& batch, torch::Device device);

/// Hash of every example's tokens and labels: 32 hexadecimal digits.
PEFT_API std::string data_hash(const Dataset& data);

/// Hash of every frozen tensor's name and bytes: 32 hexadecimal digits.
PEFT_API std::string base_hash(const Model& model);

}  // namespace peft

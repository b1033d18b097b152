// A run from its experiment to the adapter on disk. train() is the loop; the rest is in this folder.
#include "peft/experiment/run.h"

#include <torch/types.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "experiment/messages.h"
#include "experiment/model_card.h"
#include "experiment/output_directory.h"
#include "experiment/resume_rules.h"
#include "experiment/run_log.h"
#include "peft/adapters/adapter_state.h"
#include "peft/base/error.h"
#include "peft/experiment/memory_check.h"
#include "peft/experiment/prepared_run.h"
#include "peft/files/json.h"
#include "peft/files/manifest.h"
#include "peft/runtime/initialize.h"
#include "peft/train/resume.h"

namespace peft {

namespace {

using json = nlohmann::ordered_json;

/// The checkpoint that the options ask for, if it can be resumed; nothing for a run from scratch.
std::optional<TrainingCheckpoint> resolve_resume(const RunOptions& options, const Experiment& experiment,
                                                 const OutputDirectory& output, const Messages& messages) {
  const TrainingOptions& training = experiment.training;
  auto from = options.resume ? find_checkpoint(*options.resume, training.output_dir, messages) : std::nullopt;
  const bool elsewhere = !from || !output.contains(from->path);
  if (elsewhere) output.check_may_overwrite();
  if (!from) {
    if (options.resume)
      messages.info("no checkpoint in " + printable_path(training.output_dir) + ": starting from scratch");
    return from;
  }
  if (training.load_best_model_at_end && elsewhere)
    throw ConfigError(
        "[training] load_best_model_at_end: the run's other checkpoints are in the "
        "folder of " +
        printable_path(from->path) + ", so output_dir must be that folder");
  check_same_settings(*from, experiment);
  if (training.load_best_model_at_end) check_best_checkpoint(best_of(*from), training.output_dir);
  messages.info("resuming from " + printable_path(from->path) + " (step " + std::to_string(from->step) + ")");
  return from;
}

std::vector<Adapter*> adapter_pointers(const AdapterStack& adapters) {
  std::vector<Adapter*> pointers;
  for (const NamedAdapter& adapter : adapters) pointers.push_back(adapter.adapter.get());
  return pointers;
}

TrainingSession make_session(const Experiment& experiment, PreparedRun& run,
                             const std::optional<TrainingCheckpoint>& from) {
  return {.model = *run.model,
          .optimizer = *experiment.optimizer,
          .scheduler = *experiment.scheduler,
          .clipping = *experiment.clipping,
          .precision = *experiment.precision,
          .objective = *experiment.objective,
          .adapters = adapter_pointers(experiment.adapters),
          .data = run.data,
          .eval_data = run.eval_data ? &*run.eval_data : nullptr,
          .packing = experiment.data.packing,
          .max_length = experiment.data.max_length,
          .options = experiment.training,
          .memory = run.memory,
          .callbacks = {},
          .resume = from ? &from->states : nullptr};
}

RunStart describe_run(const Experiment& experiment, const PreparedRun& run, const std::string& memory_plan,
                      const std::optional<TrainingCheckpoint>& from) {
  RunStart start;
  start.output_dir = experiment.training.output_dir;
  if (from) start.first_step = from->step + 1;
  start.description.push_back(describe_model(experiment, run));
  for (const StringList& lines : {describe_vocabulary(run), describe_data(run), describe_adapters(experiment.adapters)})
    start.description.insert(start.description.end(), lines.begin(), lines.end());
  start.description.push_back(count_parameters(*run.model).text());
  if (!memory_plan.empty()) start.description.push_back(memory_plan);
  return start;
}

/// Saves the checkpoints of a run.
class CheckpointWriter {
 public:
  CheckpointWriter(const Experiment& experiment, const PreparedRun& run, const OutputDirectory& output,
                   const RunLog& log, const json& about, Best best)
      : experiment_(experiment), run_(run), output_(output), log_(log), about_(about), best_(best) {}

  /// Rotates before it writes, because only the next finite step shows that a checkpoint can be resumed from. So
  /// `best_` is the best of the checkpoints on disk, which stays until a better one is written.
  std::string save(const Snapshot& snapshot) {
    if (snapshot.finite) output_.rotate(best_);
    std::string path = write_checkpoint(
        experiment_.training.output_dir, snapshot, experiment_.adapters, *run_.model, about_,
        {{"trainer_state.json", log_.state(snapshot.best)}, {"resolved.toml", experiment_.document.resolved()}});
    best_ = snapshot.best;
    return path;
  }

 private:
  const Experiment& experiment_;
  const PreparedRun& run_;
  const OutputDirectory& output_;
  const RunLog& log_;
  const json& about_;
  Best best_;
};

/// train(); if it diverges, the message names the last checkpoint.
TrainingResult train_or_explain(TrainingSession& session) {
  try {
    return train(session);
  } catch (const DivergedError& error) {
    const std::vector<CheckpointDirectory> checkpoints = checkpoints_in(session.options.output_dir);
    if (checkpoints.empty()) throw;
    throw DivergedError(std::string(error.what()) + "; no adapter was written, the last checkpoint is " +
                        printable_path(checkpoints.front().path));
  }
}

void write_results(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result, RunLog& log,
                   const Messages& messages) {
  const std::string& output_dir = experiment.training.output_dir;
  const bool wants_best = experiment.training.load_best_model_at_end;
  if (wants_best && !result.best)
    throw DivergedError(
        "[training] load_best_model_at_end: no evaluation at a checkpoint had a finite loss, so no "
        "adapter is the best; the last checkpoint is " +
        printable_path(checkpoint_folder(output_dir, result.steps)));
  uint64_t bytes = 0;
  for (const NamedAdapter& adapter : experiment.adapters) bytes += checkpoint_bytes(*adapter.adapter, *run.model);
  require_space(output_dir, bytes, "the adapter");
  log.add_totals(result);
  write_file(output_dir + "/trainer_state.json", log.state(result.best));
  write_file(output_dir + "/README.md", model_card(experiment, run, result));
  if (!wants_best) return save_adapters(output_dir, experiment.adapters, *run.model);
  const std::string best = checkpoint_folder(output_dir, result.best->step);
  verify_manifest(best);
  copy_adapters(best, output_dir, experiment.adapters, *run.model);
  std::ostringstream loss;
  loss << result.best->loss;
  messages.info("the result is " + printable_path(best) + " with evaluation loss " + loss.str());
}

RunEnd describe_end(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result) {
  const std::string& output_dir = experiment.training.output_dir;
  RunEnd end{.result = result, .memory = run.memory, .adapters = {}, .checkpoint = ""};
  if (result.stopped)
    end.checkpoint = checkpoint_folder(output_dir, result.steps);
  else
    for (const NamedAdapter& adapter : experiment.adapters) end.adapters.push_back(folder_of(adapter, output_dir));
  return end;
}

}  // namespace

TrainingResult run(Experiment experiment, const std::vector<TrainingCallback*>& callbacks, const RunOptions& options) {
  initialize_libtorch();
  const TrainingOptions& training = experiment.training;
  const Messages messages(callbacks);
  OutputDirectory output(experiment);
  const auto from = resolve_resume(options, experiment, output, messages);  // before minutes of loading
  resume_fp32_products(from);
  const json log_so_far = from ? logged_state(*from) : json();
  PreparedRun prepared(experiment, from ? from->path : "");
  const json about = about_run(experiment, prepared);
  if (from) check_same_environment(*from, about, messages);
  const PeakBatches peak = peak_batches(experiment, prepared, training);
  const std::string memory_plan = apply_memory_plan(experiment, prepared, peak);
  check_fits_in_memory(experiment, prepared, peak);
  TrainingSession session = make_session(experiment, prepared, from);
  if (from) require_resumable(session);

  output.prepare(from, messages);
  if (training.save_every > 0) output.check_space_for_checkpoint(prepared);
  write_file(training.output_dir + "/resolved.toml", experiment.document.resolved());
  RunLog log =
      from ? RunLog(training.output_dir, training, from->step, log_so_far) : RunLog(training.output_dir, training);
  session.callbacks = callbacks;
  session.callbacks.push_back(&log);
  CheckpointWriter checkpoints(experiment, prepared, output, log, about, from ? best_of(*from) : std::nullopt);
  session.save = [&](const Snapshot& snapshot) {
    const SaveReport report{.step = snapshot.step, .path = checkpoints.save(snapshot)};
    for (TrainingCallback* callback : callbacks) callback->on_save(report);
  };
  const RunStart start = describe_run(experiment, prepared, memory_plan, from);
  for (TrainingCallback* callback : callbacks) callback->on_run_begin(start);

  const TrainingResult result = train_or_explain(session);
  if (!result.stopped) {
    prepared.memory.phase(MemoryPhase::save);
    write_results(experiment, prepared, result, log, messages);
    output.rotate(result.best);
  }
  const RunEnd end = describe_end(experiment, prepared, result);
  for (TrainingCallback* callback : callbacks) callback->on_run_end(end);
  return result;
}

}  // namespace peft

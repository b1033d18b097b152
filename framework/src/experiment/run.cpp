// A run from its experiment to the adapter on disk. train() is the loop; the rest is in this folder.
#include "peft/experiment/run.h"

#include <torch/types.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "experiment/learning_check.h"
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
  output.check_foreign_files();
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

TrainingSession make_session(const Experiment& experiment, PreparedRun& run, std::optional<TrainingCheckpoint>& from) {
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
    if (snapshot.finite) output_.rotate(best_, snapshot.temporary ? std::optional<int64_t>(1) : std::nullopt);
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

/// Nobody has asked for a temporary checkpoint, so one that cannot be written does not end the run.
std::optional<std::string> save_if_possible(CheckpointWriter& checkpoints, const Snapshot& snapshot,
                                            const Messages& messages) {
  try {
    return checkpoints.save(snapshot);
  } catch (const ResourceError& error) {
    messages.warning("no checkpoint at step " + std::to_string(snapshot.step) + ": " + error.what());
    return std::nullopt;
  }
}

void check_space_for_checkpoints(const OutputDirectory& output, const PreparedRun& run, const TrainingOptions& options,
                                 const Messages& messages) {
  if (options.save_every == 0 && options.save_every_minutes == 0) return;
  try {
    output.check_space_for_checkpoint(run);
  } catch (const ResourceError& error) {
    if (options.save_every > 0) throw;
    messages.warning(std::string(error.what()) + "; there will be no temporary checkpoints");
  }
}

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

void write_adapters(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result,
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
  if (!wants_best) return save_adapters(output_dir, experiment.adapters, *run.model);
  const std::string best = checkpoint_folder(output_dir, result.best->step);
  verify_manifest(best);
  copy_adapters(best, output_dir, experiment.adapters, *run.model);
  std::ostringstream loss;
  loss << result.best->loss;
  messages.info("the result is " + printable_path(best) + " with evaluation loss " + loss.str());
}

/// The log and the model card.
void write_report(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result,
                  OutputDirectory& output, RunLog& log, const Messages& messages) {
  log.add_totals(result);
  const StringList names{"trainer_state.json", "README.md"};
  const StringList foreign = output.claim(names);
  for (const std::string& name : names) {
    if (std::find(foreign.begin(), foreign.end(), name) != foreign.end()) {
      messages.warning("not written: " + name + ", because a file of that name was put into " +
                       printable_path(experiment.training.output_dir) + " during the run");
      continue;
    }
    write_file(experiment.training.output_dir + "/" + name,
               name == "README.md" ? model_card(experiment, run, result) : log.state(result.best));
  }
}

/// The adapters first: nothing that fails later may cost a finished training.
void write_results(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result,
                   OutputDirectory& output, RunLog& log, const Messages& messages) {
  write_adapters(experiment, run, result, messages);
  try {
    output.rotate(result.best, 0);  // which also frees space
    write_report(experiment, run, result, output, log, messages);
  } catch (const ResourceError& error) {
    throw ResourceError(std::string(error.what()) + "; the adapter is complete in " +
                        printable_path(experiment.training.output_dir));
  }
}

/// Tries the smallest adapted module, which costs the memory of its weight. Virtual tokens and prefixes are no weights.
bool can_merge(const Model& model) {
  std::vector<Site*> sites = model.sites();
  std::erase_if(sites, [](const Site* site) { return !site->has_adapter(); });
  const auto is_weight = [](const Site* site) {
    return site->base_weight() != nullptr && site->adapter_modules().size() == site->layers().size();
  };
  if (sites.empty() || !std::all_of(sites.begin(), sites.end(), is_weight)) return false;
  const Site* smallest = *std::min_element(sites.begin(), sites.end(), [](const Site* a, const Site* b) {
    return a->base_weight()->rows() * a->base_weight()->columns() <
           b->base_weight()->rows() * b->base_weight()->columns();
  });
  try {
    return smallest->merged_weight(smallest->dense_base()).has_value();
  } catch (const std::exception&) {  // the adapter is saved, and this is only for a hint
    return false;
  }
}

RunEnd describe_end(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result) {
  const std::string& output_dir = experiment.training.output_dir;
  RunEnd end{
      .result = result, .memory = run.memory, .adapters = {}, .can_merge = can_merge(*run.model), .checkpoint = ""};
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
  auto from = resolve_resume(options, experiment, output, messages);  // before minutes of loading
  resume_fp32_products(from);
  const json log_so_far = from ? logged_state(*from) : json();
  PreparedRun prepared(experiment, from ? from->path : "");
  for (const std::string& note : describe_notes(experiment, prepared)) messages.warning(note);
  const json about = about_run(experiment, prepared);
  if (from) check_same_environment(*from, about, messages);
  const PeakBatches peak = peak_batches(experiment, prepared, training);
  const std::string memory_plan = apply_memory_plan(experiment, prepared, peak);
  check_fits_in_memory(experiment, prepared, peak);
  TrainingSession session = make_session(experiment, prepared, from);
  if (from) require_resumable(session);

  output.prepare(from, messages);
  check_space_for_checkpoints(output, prepared, training, messages);
  write_file(training.output_dir + "/resolved.toml", experiment.document.resolved());
  RunLog log =
      from ? RunLog(training.output_dir, training, from->step, log_so_far) : RunLog(training.output_dir, training);
  LearningCheck learning;
  session.callbacks = callbacks;
  session.callbacks.push_back(&learning);
  session.callbacks.push_back(&log);
  CheckpointWriter checkpoints(experiment, prepared, output, log, about, from ? best_of(*from) : std::nullopt);
  session.save = [&](const Snapshot& snapshot) {
    const auto path =
        snapshot.temporary ? save_if_possible(checkpoints, snapshot, messages) : checkpoints.save(snapshot);
    if (!path) return;
    const SaveReport report{.step = snapshot.step, .path = *path};
    for (TrainingCallback* callback : callbacks) callback->on_save(report);
  };
  const RunStart start = describe_run(experiment, prepared, memory_plan, from);
  for (TrainingCallback* callback : callbacks) callback->on_run_begin(start);
  for (const std::string& warning : data_warnings(prepared)) messages.warning(warning);
  for (const std::string& caution : cautions(experiment, prepared)) messages.warning(caution);

  const TrainingResult result = train_or_explain(session);
  if (!result.stopped) {
    if (!result.learning.problem.empty()) messages.warning(result.learning.problem);
    prepared.memory.phase(MemoryPhase::save);
    write_results(experiment, prepared, result, output, log, messages);
    if (const std::string warning = learning.warning(); !warning.empty()) messages.warning(warning);
  }
  const RunEnd end = describe_end(experiment, prepared, result);
  for (TrainingCallback* callback : callbacks) callback->on_run_end(end);
  return result;
}

}  // namespace peft

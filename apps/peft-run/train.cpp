#include <torch/torch.h>

#include <cmath>
#include <filesystem>
#include <iostream>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "experiment.h"
#include "fit.h"
#include "model_card.h"
#include "peft/adapters/files.h"
#include "peft/base/error.h"
#include "peft/files/atomic_directory.h"
#include "peft/files/directory_lock.h"
#include "peft/files/json.h"
#include "peft/files/manifest.h"
#include "peft/train/resume.h"
#include "resume.h"
#include "run_log.h"
#include "screen.h"
#include "signals.h"
#include "start.h"

namespace {

namespace fs = std::filesystem;
using namespace peft;

bool holds(const fs::path& folder, const char* file) {
  std::error_code error;
  return fs::exists(folder / file, error);
}

/// Whether a run's adapter is there, of whatever name: that of this run or of another one.
bool holds_adapter(const std::string& output_dir, const AdapterStack& adapters) {
  const char* const weights = "adapter_model.safetensors";
  for (const NamedAdapter& one : adapters)
    if (holds(folder_of(one, output_dir), weights)) return true;
  if (holds(output_dir, weights)) return true;
  if (!holds(output_dir, "trainer_state.json")) return false;  // what lies beneath is another folder's
  std::error_code error;
  for (auto entry = fs::directory_iterator(output_dir, error); !error && entry != fs::directory_iterator();
       entry.increment(error))
    if (!entry->path().filename().string().starts_with("checkpoint-") && holds(entry->path(), weights)) return true;
  return false;
}

/// What is to be written over must not be what the run begins from, and needs again when it is to go on.
void require_kept(const AdapterStack& adapters, const std::string& output_dir) {
  std::error_code error;
  for (const NamedAdapter& one : adapters) {
    if (one.init_from.empty()) continue;
    const std::string from = fs::canonical(one.init_from, error).string();
    for (const CheckpointDirectory& folder : checkpoints_in(output_dir))
      if ((from + "/").starts_with(fs::canonical(folder.path, error).string() + "/"))
        throw ConfigError("[adapter] init_from: " + printable(one.init_from, 4096) +
                          " is in a checkpoint of training.output_dir, which this run would delete; name another "
                          "output_dir, or move the checkpoint");
  }
}

/// Refuses to write over an adapter or checkpoints unasked.
void check_output(const TrainingOptions& options, const AdapterStack& adapters) {
  if (options.overwrite_output_dir) return require_kept(adapters, options.output_dir);
  const bool adapter = holds_adapter(options.output_dir, adapters);
  if (adapter || !checkpoints_in(options.output_dir).empty())
    throw ConfigError("[training] output_dir: " + printable(options.output_dir, 4096) + " already holds " +
                      (adapter ? "an adapter" : "checkpoints; go on from them with --resume") +
                      "; name another folder, or set training.overwrite_output_dir = true");
}

void make_output(const TrainingOptions& options) {
  try {
    make_folder(options.output_dir);
  } catch (const ResourceError& error) {
    throw ResourceError(std::string("[training] output_dir: ") + error.what());
  }
}

/// Deletes old checkpoints as save_total_limit says.
void thin_out(const TrainingOptions& options, const Best& best) {
  if (!options.save_total_limit) return;
  const bool spares = options.load_best_model_at_end && best;
  rotate_checkpoints(options.output_dir, *options.save_total_limit, spares ? std::optional(best->step) : std::nullopt);
}

/// The oldest go before the new one comes, of which only the next step shows that it can be gone on from. `best` is
/// that of the checkpoints that are there; should the new one be better, the one before stays until it is.
void save_checkpoint(const Snapshot& snapshot, const Experiment& experiment, const Workload& work, const RunLog& log,
                     const nlohmann::ordered_json& about, Best& best) {
  if (snapshot.sound) thin_out(experiment.training, best);
  write_checkpoint(
      experiment.training.output_dir, snapshot, experiment.adapters, *work.model, about,
      {{"trainer_state.json", log.state(snapshot.best)}, {"resolved.toml", experiment.document.resolved()}});
  best = snapshot.best;
}

/// Throws ResourceError where the disk would not even hold one checkpoint.
void require_space_of_checkpoint(const Experiment& experiment, const Workload& work) {
  double bytes = 0;
  for (const auto& [name, tensor] : work.model->trainable())
    bytes += static_cast<double>(tensor.nbytes()) + static_cast<double>(experiment.optimizer->state_bytes(tensor));
  require_space(experiment.training.output_dir, static_cast<uint64_t>(bytes), "one checkpoint");
}

/// Whether a checkpoint lies in the folder that the run writes into.
bool is_in(const std::string& output_dir, const std::string& checkpoint) {
  std::error_code error;  // by whatever path, links included
  const fs::path real = fs::canonical(checkpoint, error);
  return !error && fs::equivalent(real.parent_path(), output_dir, error) && !error;
}

/// The folder as this run needs it: nothing half written, and nothing of another course.
void tidy_output(const Experiment& experiment, const std::optional<TrainingCheckpoint>& from) {
  const TrainingOptions& options = experiment.training;
  clean_output(options.output_dir, experiment.adapters);
  if (!from || !is_in(options.output_dir, from->path)) {
    std::error_code error;
    fs::remove(fs::path(options.output_dir) / "metrics.jsonl", error);
    return rotate_checkpoints(options.output_dir, 0, std::nullopt);
  }
  for (const std::string& path : archive_checkpoints_after(options.output_dir, from->step))
    std::cerr << "set aside: " << printable(path, 4096) << "\n";
}

/// Where `--resume` says to go on; nothing: from the beginning.
std::optional<TrainingCheckpoint> start_of(const TrainArguments& arguments, const Experiment& experiment) {
  if (!arguments.resume) {
    check_output(experiment.training, experiment.adapters);
    return std::nullopt;
  }
  const std::string& output = experiment.training.output_dir;
  auto from = find_checkpoint(*arguments.resume, output);
  if (!from) {
    check_output(experiment.training, experiment.adapters);
    std::cout << "no checkpoint in " << printable(output, 4096) << ": the run begins" << std::endl;
    return from;
  }
  const bool elsewhere = !is_in(output, from->path);
  if (elsewhere) check_output(experiment.training, experiment.adapters);
  if (experiment.training.load_best_model_at_end && elsewhere)
    throw ConfigError("[training] load_best_model_at_end: the checkpoints so far are beside " +
                      printable(from->path, 4096) + ", so output_dir must be their folder");
  require_same_run(*from, experiment);
  if (experiment.training.load_best_model_at_end) require_best(best_of(*from), output);
  std::cout << "going on from " << printable(from->path, 4096) << ", after step " << from->step << std::endl;
  return from;
}

void print_start(const Experiment& experiment, const Workload& work) {
  const Model& model = *work.model;
  std::cout << "model: " << printable(experiment.model.path, 4096) << " (" << printable(model.config().model_type)
            << ", " << c10::toString(model.dtype()) << ", " << work.device << ", " << at::get_num_threads()
            << " threads)\n";
  std::cout << tokens_text(work) << data_text(work);
  std::cout << adapters_text(experiment.adapters) << count_parameters(model).text() << std::endl;
}

/// Where the time of the steps went, in shares of all of it.
void print_profile(const TrainingResult& result) {
  const double seconds = result.seconds_after_first;
  if (result.profile.empty() || seconds <= 0) return;
  double rest = seconds;
  const auto share = [&](const std::string& part, double spent) {
    std::cout << " " << part << " " << std::lround(1000 * spent / seconds) / 10.0 << " %";
  };
  std::cout << "time of the steps but the first:";
  for (const auto& [part, spent] : result.profile) {
    share(part, spent);
    std::cout << ",";
    rest -= spent;
  }
  share("other", rest);
  std::cout << "\n";
}

/// Where the memory went: the run's phases and, at the highest moment, its components.
void print_memory(const MemoryMeter& meter) {
  std::cout << "memory, highest of each phase, allocated / reserved:";
  for (std::size_t i = 1; i < kMemoryPhases; ++i) {
    const auto phase = static_cast<MemoryPhase>(i);
    const MemoryMeter::Peak peak = meter.peak(phase);
    if (peak.reserved > 0)
      std::cout << "\n  " << name(phase) << ": " << bytes_text(peak.allocated) << " / " << bytes_text(peak.reserved);
  }
  std::cout << "\nat the peak:";
  const MemoryMeter::Peak peak = meter.peak();
  for (std::size_t i = 0; i < kMemoryComponents; ++i)
    if (peak.components[i] > 0)
      std::cout << " " << name(static_cast<MemoryComponent>(i)) << " " << bytes_text(peak.components[i]);
  std::cout << "; resident " << bytes_text(peak_resident_bytes()) << "\n";
}

void print_saved(const Experiment& experiment) {
  for (const NamedAdapter& one : experiment.adapters) {
    const fs::path folder = folder_of(one, experiment.training.output_dir);
    std::cout << "adapter: " << printable(folder.string(), 4096) << " ("
              << bytes_text(fs::file_size(folder / "adapter_model.safetensors")) << ")" << std::endl;
  }
}

std::vector<Adapter*> pointers(const AdapterStack& adapters) {
  std::vector<Adapter*> all;
  for (const NamedAdapter& one : adapters) all.push_back(one.adapter.get());
  return all;
}

/// The line of the end, where a signal came before it.
int tell_stopped(const Signals& signals, const TrainingResult& result, const std::string& output_dir) {
  std::cout << "stopped by " << signals.name() << " after step " << result.steps << ", saved as "
            << printable(checkpoint_folder(output_dir, result.steps), 4096) << "; go on with --resume" << std::endl;
  return stopped_by_signal;
}

/// train(); where it diverges, the message tells of what is left.
TrainingResult trained(TrainingSession& run, const TrainingOptions& options) {
  try {
    return train(run);
  } catch (const DivergedError& error) {
    const std::vector<CheckpointDirectory> all = checkpoints_in(options.output_dir);
    if (all.empty()) throw;
    throw DivergedError(std::string(error.what()) + "; no adapter was written, the last checkpoint is " +
                        printable(all.front().path, 4096));
  }
}

void write_results(const Experiment& experiment, const Workload& work, const TrainingResult& result, RunLog& log) {
  const std::string& output = experiment.training.output_dir;
  const bool wants_best = experiment.training.load_best_model_at_end;
  if (wants_best && !result.best)
    throw DivergedError(
        "[training] load_best_model_at_end: no evaluation at a checkpoint had a finite loss, so no "
        "adapter is the best; the last checkpoint is " +
        printable(checkpoint_folder(output, result.steps), 4096));
  uint64_t bytes = 0;
  for (const NamedAdapter& one : experiment.adapters) bytes += checkpoint_bytes(*one.adapter, *work.model);
  require_space(output, bytes, "the adapter");
  log.finished(result);
  write_file(output + "/trainer_state.json", log.state(result.best));
  write_file(output + "/README.md", model_card(experiment, work, result));
  if (!wants_best) return save_adapters(output, experiment.adapters, *work.model);
  const std::string best = checkpoint_folder(output, result.best->step);
  verify_manifest(best);
  copy_adapters(best, output, experiment.adapters, *work.model);
  std::cout << "the result is " << printable(best, 4096) << ", of evaluation loss " << result.best->loss << "\n";
}

void print_done(const Experiment& experiment, const Workload& work, const TrainingResult& result) {
  std::cout
      << "trained " << result.steps << " steps in " << time_text(result.seconds) << ", mean loss " << result.loss
      << "\nonly the adapter learned: every adapter tensor had a finite gradient, no base tensor any; the base is "
         "bit-equal (XXH3 "
      << result.base_hash << ")\n";
  if (result.nonfinite > 0)
    std::cout << result.nonfinite << " steps were skipped, since loss or gradients were not finite\n";
  print_profile(result);
  print_memory(work.memory);
  print_saved(experiment);
}

}  // namespace

int train_command(const TrainArguments& arguments) {
  Signals signals;
  Experiment experiment(arguments.experiment, arguments.sets);
  start_torch();
  const TrainingOptions& options = experiment.training;
  std::optional<DirectoryLock> lock;
  std::error_code none;
  if (fs::is_directory(options.output_dir, none)) lock.emplace(options.output_dir);
  const auto from = start_of(arguments, experiment);  // before minutes are spent on what could not be kept
  const auto log_so_far = from ? logged_state(*from) : nlohmann::ordered_json();
  Workload work(experiment, from ? from->path : "");
  const nlohmann::ordered_json about = about_run(experiment, work);
  if (from) require_same_ground(*from, about);
  const LargestBatches largest = largest_batches(experiment, work, options);
  const std::string arranged = arranged_memory(experiment, work, largest);
  require_fit(experiment, work, largest);
  TrainingSession run{.model = *work.model,
                      .optimizer = *experiment.optimizer,
                      .scheduler = *experiment.scheduler,
                      .clipping = *experiment.clipping,
                      .precision = *experiment.precision,
                      .adapters = pointers(experiment.adapters),
                      .data = work.data,
                      .eval_data = work.eval_data ? &*work.eval_data : nullptr,
                      .packing = experiment.data.packing,
                      .max_length = experiment.data.max_length,
                      .options = options,
                      .memory = work.memory,
                      .callbacks = {},
                      .stop = [&] { return signals.asked(); },
                      .resume = from ? &from->states : nullptr};
  if (from) require_resumable(run);

  make_output(options);
  if (!lock) {
    lock.emplace(options.output_dir);
    check_output(options, experiment.adapters);  // there was no folder: what another run made meanwhile is its own
  }
  tidy_output(experiment, from);
  if (options.save_every > 0) require_space_of_checkpoint(experiment, work);
  print_start(experiment, work);
  std::cout << arranged << std::flush;
  write_file(options.output_dir + "/resolved.toml", experiment.document.resolved());
  Screen screen;
  RunLog log = from ? RunLog(options.output_dir, options, from->step, log_so_far) : RunLog(options.output_dir, options);
  run.callbacks = {&screen, &log};
  Best best = from ? best_of(*from) : std::nullopt;
  run.save = [&](const Snapshot& snapshot) { save_checkpoint(snapshot, experiment, work, log, about, best); };
  signals.begin();
  const TrainingResult result = trained(run, options);
  screen.close();
  if (result.stopped) return tell_stopped(signals, result, options.output_dir);

  work.memory.phase(MemoryPhase::save);
  write_results(experiment, work, result, log);
  thin_out(options, result.best);
  print_done(experiment, work, result);
  return 0;
}

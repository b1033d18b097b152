#include <torch/torch.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "commands.h"
#include "experiment.h"
#include "model_card.h"
#include "peft/adapter_files.h"
#include "peft/error.h"
#include "peft/files/draft_folder.h"
#include "peft/files/json.h"
#include "run_log.h"
#include "screen.h"

namespace {

namespace fs = std::filesystem;
using namespace peft;

/// Refuses to write over an adapter unasked.
void check_output(const TrainingOptions& options, const AdapterStack& adapters) {
  const auto held = [&](const NamedAdapter& one) {
    return fs::exists(fs::path(folder_of(one, options.output_dir)) / "adapter_model.safetensors");
  };
  if (!options.overwrite_output_dir && std::any_of(adapters.begin(), adapters.end(), held))
    throw ConfigError("[training] output_dir: " + printable(options.output_dir, 4096) +
                      " already holds an adapter; name another folder, or set training.overwrite_output_dir = true");
}

void make_output(const TrainingOptions& options) {
  std::error_code error;
  fs::create_directories(options.output_dir, error);
  if (error)
    throw ResourceError("[training] output_dir: " + printable(options.output_dir, 4096) +
                        " cannot be made: " + error.message());
}

/// A whole checkpoint or none.
void save_checkpoint(int64_t step, const Experiment& experiment, const Workload& work, const RunLog& log) {
  DraftFolder draft(experiment.training.output_dir + "/checkpoint-" + std::to_string(step));
  save_adapters(draft.path(), experiment.adapters, *work.model);
  const auto write = [&](const char* file, const State& state) {
    if (!state.empty()) write_state(draft.file(file), state, {});
  };
  State scheduler;
  for (const auto& [name, value] : experiment.scheduler->state())
    scheduler[name] = torch::tensor(value, torch::kDouble);
  write("optimizer.safetensors", experiment.optimizer->state());
  write("scheduler.safetensors", scheduler);
  write("clipping.safetensors", experiment.clipper->state());
  write("precision.safetensors", experiment.precision->state());
  log.write_state(draft.path());
  draft.publish();
}

void print_start(const Experiment& experiment, const Workload& work) {
  const Model& model = *work.model;
  std::cout << "model: " << printable(experiment.model_path, 4096) << " (" << printable(model.config().model_type)
            << ", " << c10::toString(model.dtype()) << ", " << work.device << ", " << at::get_num_threads()
            << " threads)\n";
  std::cout << data_text(work);
  std::cout << adapters_text(experiment.adapters) << census(model).text() << std::endl;
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

}  // namespace

int train_command(const TrainArguments& arguments) {
  Experiment experiment(arguments.experiment, arguments.sets);
  install_cpu_allocator();
  const TrainingOptions& options = experiment.training;
  check_output(options, experiment.adapters);  // before minutes are spent on what could not be kept
  Workload work(experiment);
  // Only a budget asks how large the steps are.
  const StepCounts counts = experiment.memory.budget > 0 ? count_steps(experiment, work) : StepCounts{};
  const std::string arranged = arranged_memory(experiment, work, counts);
  make_output(options);
  print_start(experiment, work);
  std::cout << arranged << std::flush;

  write_file(options.output_dir + "/resolved.toml", experiment.document.resolved());
  Screen screen;
  RunLog log(options.output_dir, options);
  Run run{.model = *work.model,
          .optimizer = *experiment.optimizer,
          .scheduler = *experiment.scheduler,
          .clipper = *experiment.clipper,
          .precision = *experiment.precision,
          .adapters = pointers(experiment.adapters),
          .data = work.data,
          .eval_data = work.eval_data ? &*work.eval_data : nullptr,
          .packing = experiment.data.packing,
          .max_length = experiment.data.max_length,
          .options = options,
          .memory = work.memory,
          .observers = {&screen, &log},
          .save = [&](int64_t step) { save_checkpoint(step, experiment, work, log); }};
  const TrainingResult result = train(run);
  screen.close();

  work.memory.phase(MemoryPhase::save);
  log.finished(result);
  log.write_state(options.output_dir);
  write_file(options.output_dir + "/README.md", model_card(experiment, work, result));
  save_adapters(options.output_dir, experiment.adapters, *work.model);
  std::cout
      << "trained " << result.steps << " steps in " << time_text(result.seconds) << ", mean loss " << result.loss
      << "\nonly the adapter learned: every adapter tensor had a finite gradient, no base tensor any; the base is "
         "bit-equal (XXH3 "
      << result.base_hash << ")\n";
  print_profile(result);
  print_memory(work.memory);
  print_saved(experiment);
  return 0;
}

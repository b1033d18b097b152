#include <iostream>
#include <utility>

#include "arguments.h"
#include "commands.h"
#include "console_reporter.h"
#include "next_commands.h"
#include "peft/experiment/run.h"
#include "stop_on_signal.h"

namespace {

NextCommands next_commands(const peft::Experiment& experiment) {
  NextCommands next;
  next.model = experiment.model.path;
  next.data = experiment.data.eval.empty() ? experiment.data.train.front() : experiment.data.eval.front();
  next.plugin_paths = experiment.plugin_paths;
  for (const auto& [kind, name] : experiment.plugin_names)
    if (kind == peft::Kind<peft::Precision>::name) next.precision = name;
  return next;
}

}  // namespace

Outcome train_command(const peft::StringList& words) {
  ExperimentArguments given;
  peft::RunOptions options;
  Arguments arguments("EXPERIMENT.toml [--with FILE.toml]... [--set TABLE.KEY=VALUE]... [--resume [DIR]]");
  arguments.optional_folder("resume", options.resume, "DIR",
                            "resume from this checkpoint; without DIR, from the newest intact one of output_dir");
  given.add_to(arguments);
  if (!arguments.parse(words)) return {};
  given.check(arguments);

  StopOnSignal stop_on_signal;
  ConsoleReporter reporter;
  peft::Experiment experiment = peft::Experiment::from_file(given.path, given.sets, given.overlays);
  NextCommands next = next_commands(experiment);
  const peft::TrainingResult result = peft::run(std::move(experiment), {&reporter, &stop_on_signal}, options);
  if (result.stopped) {
    std::cout << "stopped by " << stop_on_signal.name() << " after step " << result.steps << ", saved as "
              << reporter.checkpoint() << "; resume with --resume" << std::endl;
    return {.code = stopped_by_signal};
  }
  next.adapters = reporter.adapters();
  next.can_merge = reporter.can_merge();
  print_next_commands(next);
  return {.needs_output = false};
}

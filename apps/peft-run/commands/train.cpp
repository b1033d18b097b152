#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "console_reporter.h"
#include "peft/experiment/run.h"
#include "stop_on_signal.h"

Outcome train_command(const peft::StringList& words) {
  ExperimentArguments experiment;
  peft::RunOptions options;
  Arguments arguments("EXPERIMENT.toml [--set TABLE.KEY=VALUE]... [--resume [DIR]]");
  arguments.optional_folder("resume", options.resume, "DIR",
                            "resume from this checkpoint; without DIR, from the newest intact one of output_dir");
  experiment.add_to(arguments);
  if (!arguments.parse(words)) return {};
  experiment.check(arguments);

  StopOnSignal stop_on_signal;
  ConsoleReporter reporter;
  const peft::TrainingResult result =
      peft::run(peft::Experiment::from_file(experiment.path, experiment.sets), {&reporter, &stop_on_signal}, options);
  if (result.stopped) {
    std::cout << "stopped by " << stop_on_signal.name() << " after step " << result.steps << ", saved as "
              << reporter.checkpoint() << "; resume with --resume" << std::endl;
    return {.code = stopped_by_signal};
  }
  return {.needs_output = false};
}

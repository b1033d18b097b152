#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "arguments.h"
#include "commands.h"
#include "inference.h"
#include "peft/base/error.h"
#include "peft/experiment/prepared_run.h"
#include "peft/experiment/token_ids.h"
#include "peft/train/evaluate.h"
#include "warnings.h"

namespace {

using namespace peft;

struct EvalArguments {
  AdapterArguments from;
  DeviceArguments device;
  bool together = false;  ///< all adapters at once; otherwise each alone
  StringList files;
  std::string format = "auto", system;
  int64_t max_length = 512, batch_size = 8;
  StringList plugin_paths;
};

/// False: only the help was asked for.
bool read(const StringList& words, EvalArguments& out) {
  Arguments arguments("eval --model M --data FILE [--adapter DIR]... [options]");
  out.from.add_to(arguments);
  arguments.flag("together", out.together,
                 "evaluate all adapters at once, the first one outermost; without it each alone");
  arguments.required("data", out.files, "FILE", ".json or .jsonl; may be repeated");
  out.from.add_chat_template_to(arguments);
  arguments.option("format", out.format, "NAME", "as [data] format in an experiment");
  arguments.option("system", out.system, "TEXT", "system message of conversations without one");
  arguments.option("max-length", out.max_length, "N", "maximum tokens per example; longer examples are truncated");
  arguments.option("batch-size", out.batch_size, "N", "examples per batch");
  out.device.add_to(arguments);
  arguments.plugin_path(out.plugin_paths);
  if (!arguments.parse(words)) return false;
  arguments.require(out.max_length > 1, "--max-length must be at least 2");
  arguments.require(out.batch_size > 0, "--batch-size must be positive");
  return true;
}

void print_row(const std::string& what, const Evaluation& result) {
  char numbers[96];
  std::snprintf(numbers, sizeof numbers, "%10.4f  %10.3f  %8.2f %%", result.loss, result.figure("perplexity"),
                100 * result.figure("accuracy"));
  std::cout << numbers << "  " << what << std::endl;
}

/// The adapters of each row of the table. The first row is the base.
std::vector<StringList> rows_of(const EvalArguments& arguments) {
  std::vector<StringList> rows = {{}};
  if (arguments.together && !arguments.from.adapters.empty()) rows.push_back(arguments.from.adapters);
  if (!arguments.together)
    for (const std::string& folder : arguments.from.adapters) rows.push_back({folder});
  return rows;
}

std::string title(const StringList& folders) {
  std::string text;
  for (const std::string& folder : folders) text += (text.empty() ? "" : " + ") + printable_path(folder);
  return text.empty() ? "base" : text;
}

}  // namespace

Outcome eval_command(const StringList& words) {
  EvalArguments arguments;
  if (!read(words, arguments)) return {};
  Inference inference(arguments.from, arguments.device, arguments.plugin_paths);
  Options none;
  const auto objective = inference.plugins().make<Objective>(Kind<Objective>::default_plugin, none);
  DataOptions options;
  options.formats = objective->formats();
  options.format = arguments.format;
  options.system = arguments.system;
  options.max_length = arguments.max_length;
  const Dataset data = load_dataset(arguments.files, options, inference.text());
  std::cout << "data: " << describe_dataset(data) << "\n      loss  perplexity    accuracy" << std::endl;

  StringList warned;  // virtual tokens leave an adapter fewer positions
  // Each row loads its own base, because a method may change it for the next one.
  std::string diverged;
  for (const StringList& folders : rows_of(arguments)) {
    const auto adapted = inference.load(folders);
    check_token_ids(data, *adapted.model);
    if (const StringList warnings = dataset_warnings(data, *adapted.model, "data"); warnings != warned)
      print_warnings(warned = warnings);
    const Evaluation result = evaluate(*adapted.model, inference.precision(), *objective, data, arguments.batch_size);
    print_row(title(folders), result);
    if (!std::isfinite(result.loss)) diverged += (diverged.empty() ? "" : ", ") + title(folders);
  }
  if (!diverged.empty())
    throw DivergedError("the loss is not finite: " + diverged +
                        "; the adapter has diverged, or the precision is too narrow: try --precision fp32");
  return {};
}

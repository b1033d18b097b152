#include <torch/torch.h>

#include <cstdio>
#include <iostream>

#include "commands.h"
#include "experiment.h"
#include "inference.h"
#include "peft/base/error.h"
#include "peft/train/train.h"
#include "token_ids.h"

namespace {

using namespace peft;

void print_row(const std::string& what, const Evaluation& result) {
  char numbers[96];
  std::snprintf(numbers, sizeof numbers, "%10.4f  %10.3f  %8.2f %%", result.loss, result.perplexity(),
                100 * result.accuracy);
  std::cout << numbers << "  " << what << std::endl;
}

/// The adapters of each row; of the first none.
std::vector<StringList> rows_of(const EvalArguments& arguments) {
  std::vector<StringList> rows = {{}};
  if (arguments.together && !arguments.adapters.empty()) rows.push_back(arguments.adapters);
  if (!arguments.together)
    for (const std::string& folder : arguments.adapters) rows.push_back({folder});
  return rows;
}

std::string title(const StringList& folders) {
  std::string text;
  for (const std::string& folder : folders) text += (text.empty() ? "" : " + ") + printable(folder, 4096);
  return text.empty() ? "base" : text;
}

}  // namespace

int eval_command(const EvalArguments& arguments) {
  Inference inference(arguments.model, arguments.adapters, arguments.precision, arguments.device,
                      arguments.plugin_paths);
  DataOptions options;
  options.format = arguments.format, options.system = arguments.system, options.max_length = arguments.max_length;
  const Dataset data = load_dataset(arguments.data, options, inference.text());
  std::cout << "data: " << data_counts(data) << "      loss  perplexity    accuracy\n";

  // Each adapter on a base of its own: a method may change what another one finds.
  for (const StringList& folders : rows_of(arguments)) {
    const auto adapted = inference.load(folders, arguments.any_base);
    require_rows(data, *adapted.model);
    print_row(title(folders), evaluate(*adapted.model, inference.precision(), data, arguments.batch_size));
  }
  return 0;
}

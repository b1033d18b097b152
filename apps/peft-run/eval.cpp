#include <torch/torch.h>

#include <cstdio>
#include <iostream>

#include "commands.h"
#include "experiment.h"
#include "inference.h"
#include "peft/error.h"
#include "peft/train.h"

namespace {

using namespace peft;

void print_row(const std::string& what, const Evaluation& result) {
  char numbers[96];
  std::snprintf(numbers, sizeof numbers, "%10.4f  %10.3f  %8.2f %%", result.loss, result.perplexity(),
                100 * result.accuracy);
  std::cout << numbers << "  " << what << std::endl;
}

}  // namespace

int eval_command(const EvalArguments& arguments) {
  Inference inference(arguments.model, arguments.precision, arguments.device, arguments.plugin_paths);
  DataOptions options;
  options.format = arguments.format, options.system = arguments.system, options.max_length = arguments.max_length;
  const Dataset data = load_dataset(arguments.data, options, inference.text());
  std::cout << "data: " << data_counts(data) << "      loss  perplexity    accuracy\n";

  // Each adapter on a base of its own: a method may change what another one finds.
  StringList rows = {""};
  rows.insert(rows.end(), arguments.adapters.begin(), arguments.adapters.end());
  for (const std::string& folder : rows) {
    const auto adapted = inference.load(folder.empty() ? StringList{} : StringList{folder}, arguments.any_base);
    print_row(folder.empty() ? "base" : printable(folder, 4096),
              evaluate(*adapted.model, inference.precision(), data, arguments.batch_size));
  }
  return 0;
}

#include <torch/torch.h>

#include <cstdio>
#include <iostream>

#include "adapters.h"
#include "commands.h"
#include "experiment.h"
#include "peft/error.h"
#include "peft/memory.h"
#include "peft/model/load.h"
#include "peft/text/text.h"
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
  install_cpu_allocator();
  Plugins plugins(Plugins::search_path(arguments.plugin_paths));
  Options none;
  const auto precision = plugins.make<Precision>(arguments.precision, none);
  const torch::Device device = choose_device(arguments.device);
  const auto checkpoint = Checkpoint::open(arguments.model);
  DataOptions options;
  options.format = arguments.format, options.system = arguments.system, options.max_length = arguments.max_length;
  const Dataset data = load_dataset(arguments.data, options, load_text(*checkpoint));
  std::cout << "data: " << data_counts(data) << "      loss  perplexity    accuracy\n";

  // Each adapter on a base of its own: a method may change what another one finds.
  StringList rows = {""};
  rows.insert(rows.end(), arguments.adapters.begin(), arguments.adapters.end());
  for (const std::string& folder : rows) {
    const auto model = load_model(checkpoint, precision->base_dtype(), device);
    const auto adapters = attach_adapters(folder.empty() ? StringList{} : StringList{folder}, plugins, *model,
                                          *precision, arguments.any_base);
    print_row(folder.empty() ? "base" : printable(folder, 4096),
              evaluate(*model, *precision, data, arguments.batch_size));
  }
  return 0;
}

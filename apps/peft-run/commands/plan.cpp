#include <torch/types.h>

#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "arguments.h"
#include "commands.h"
#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "peft/base/format_count.h"
#include "peft/experiment/memory_check.h"
#include "peft/experiment/prepared_run.h"
#include "peft/runtime/dtype_name.h"
#include "peft/runtime/initialize.h"
#include "peft/train/parameter_counts.h"
#include "peft/train/train.h"
#include "warnings.h"

namespace {

using namespace peft;

template <class Value>
std::string text_of(const Value& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

/// One line for all sites whose adapters have the same tensors: `30 × q_proj: lora_A.weight [16, 576] …`.
void print_modules(const Model& model) {
  std::map<std::string, std::pair<int64_t, std::string>> kinds;  // line → how many, the first path
  std::vector<std::string> order;
  for (const Site* site : model.sites()) {
    std::string shape;
    for (const auto& [name, tensor] : site->adapter_tensors())
      shape += "  " + name + " " + text_of(tensor.sizes()) + (tensor.requires_grad() ? "" : " (frozen)");
    if (shape.empty()) continue;
    const std::string leaf = site->path().substr(site->path().rfind('.') + 1);
    auto& [count, first] = kinds[leaf + ":" + shape];
    if (count++ == 0) {
      first = site->path();
      order.push_back(leaf + ":" + shape);
    }
  }
  std::cout << "adapted modules:\n";
  for (const std::string& kind : order)
    std::cout << "  " << kinds[kind].first << " × " << printable(kind, 400) << "  (first: " << kinds[kind].second
              << ")\n";
}

void print_lines(const StringList& lines) {
  for (const std::string& line : lines) std::cout << line << "\n";
}

void print_groups(Optimizer& optimizer) {
  for (const ParamGroup& group : optimizer.groups()) {
    int64_t elements = 0;
    for (const auto& [name, tensor] : group.parameters) elements += tensor.numel();
    std::cout << "group '" << group.name << "': " << format_count(elements) << " parameters, "
              << (group.parameters.empty() ? "" : dtype_name(group.parameters.front().second.scalar_type())) << ", lr "
              << *group.initial_lr << ", weight_decay " << *group.weight_decay << "\n";
  }
}

void print_steps(const Experiment& experiment, const StepCounts& counts) {
  std::cout << "steps: " << counts.steps << ", " << (counts.is_estimate ? "about " : "") << format_count(counts.tokens)
            << " tokens, " << format_count(counts.num_target_tokens) << " target tokens; largest micro-batch "
            << format_count(counts.peak.training.tokens) << " tokens\nlr:";
  const double base = *experiment.optimizer->groups().front().initial_lr;
  for (const int64_t step : std::set<int64_t>{0, counts.steps / 4, counts.steps / 2, counts.steps - 1})
    std::cout << " step " << step + 1 << " " << experiment.scheduler->lr(step, counts.steps, base);
  std::cout << "\n";
}

void print_memory(const MemoryEstimate& estimate) {
  std::cout << "memory expected: " << describe_estimate(estimate) << ", total " << format_bytes(estimate.total())
            << "\n";
  if (estimate.program > 0)
    std::cout << "resident: " << format_bytes(estimate.resident()) << ", including " << format_bytes(estimate.program)
              << " of code and runtime\n";
}

/// The first example as the model sees it, with its target tokens in brackets.
void print_sample(const PreparedRun& run) {
  const Example& example = run.data.examples.front();
  std::cout << "first example (" << run.data.source(example) << "), target tokens in ⟦ ⟧:\n";
  for (std::size_t at = 0; at < example.ids.size();) {
    const bool is_target = example.labels[at] != ignored_label;
    std::vector<int64_t> segment;
    for (; at < example.ids.size() && (example.labels[at] != ignored_label) == is_target; ++at)
      segment.push_back(example.ids[at]);
    const std::string text = run.text.get().tokenizer->decode(segment, false);
    std::cout << (is_target ? "⟦" + text + "⟧" : text);
  }
  std::cout << "\n";
}

}  // namespace

Outcome plan_command(const StringList& words) {
  ExperimentArguments given;
  Arguments arguments("plan EXPERIMENT.toml [--with FILE.toml]... [--set TABLE.KEY=VALUE]...");
  given.add_to(arguments);
  if (!arguments.parse(words)) return {};
  given.check(arguments);

  Experiment experiment = Experiment::from_file(given.path, given.sets, given.overlays);
  initialize_libtorch();
  const PreparedRun run(experiment);
  const CausalLm& model = *run.model;
  for (const std::string& note : describe_notes(experiment, run)) std::cerr << "warning: " << note << "\n";
  std::cout << describe_model(experiment, run) << "\n";
  print_lines(describe_vocabulary(run));
  print_lines(describe_data(run));
  print_warnings(data_warnings(run));
  print_modules(model);
  print_lines(describe_adapters(experiment.adapters));
  std::cout << count_parameters(model).text() << "\n";
  print_groups(*experiment.optimizer);
  print_lines(describe_parts(experiment));
  const StepCounts counts = count_steps(experiment, run);
  print_steps(experiment, counts);
  const std::string memory_plan = apply_memory_plan(experiment, run, counts.peak);
  if (!memory_plan.empty()) std::cout << memory_plan << "\n";
  print_memory(expected_memory(experiment, run, counts.peak));
  print_sample(run);
  std::cout << std::flush;
  for (const std::string& caution : cautions(experiment, run)) std::cerr << "warning: " << caution << "\n";
  check_fits_in_memory(experiment, run, counts.peak);
  return {};
}

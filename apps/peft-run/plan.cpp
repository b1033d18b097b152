#include <torch/torch.h>

#include <iostream>
#include <map>
#include <set>
#include <sstream>

#include "commands.h"
#include "experiment.h"
#include "fit.h"
#include "peft/base/error.h"
#include "screen.h"
#include "start.h"

namespace {

using namespace peft;

template <class Value>
std::string text_of(const Value& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

/// One line for all sites whose adapters look alike: `30 × …self_attn.q_proj: lora_A.weight [16, 576] …`.
void print_modules(const Model& model) {
  std::map<std::string, std::pair<int64_t, std::string>> kinds;  // what it looks like → how many, the first
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
  std::cout << "modules adapted:\n";
  for (const std::string& kind : order)
    std::cout << "  " << kinds[kind].first << " × " << printable(kind, 400) << "  (first: " << kinds[kind].second
              << ")\n";
}

void print_groups(Optimizer& optimizer) {
  for (const ParamGroup& group : optimizer.groups()) {
    int64_t elements = 0;
    for (const auto& [name, tensor] : group.parameters) elements += tensor.numel();
    std::cout << "group '" << group.name << "': " << format_count(elements) << " parameters, "
              << (group.parameters.empty() ? "" : c10::toString(group.parameters.front().second.scalar_type()))
              << ", lr " << *group.initial_lr << ", weight_decay " << *group.weight_decay << "\n";
  }
}

void print_steps(const Experiment& experiment, const StepCounts& counts) {
  std::cout << "steps: " << counts.steps << ", " << format_count(counts.tokens) << " tokens, "
            << format_count(counts.num_target_tokens) << " supervised; largest micro-batch "
            << format_count(counts.largest.trained.tokens) << " tokens\nlr:";
  const double base = *experiment.optimizer->groups().front().initial_lr;
  for (const int64_t step : std::set<int64_t>{0, counts.steps / 4, counts.steps / 2, counts.steps - 1})
    std::cout << " step " << step + 1 << " " << learning_rate(*experiment.scheduler, step, counts.steps, base);
  std::cout << "\n";
}

void print_memory(const MemoryEstimate& estimate) {
  std::cout << "memory expected: " << estimate_text(estimate) << ", in all " << bytes_text(estimate.total()) << "\n";
  if (estimate.program > 0)
    std::cout << "resident: with the program's " << bytes_text(estimate.program) << " that hold no tensors "
              << bytes_text(estimate.resident()) << "\n";
}

/// The first example as the model sees it: what it must say stands in brackets.
void print_sample(const Workload& work) {
  const Example& example = work.data.examples.front();
  std::cout << "first example (" << work.data.source(example) << "), what is learned in ⟦ ⟧:\n";
  for (std::size_t at = 0; at < example.ids.size();) {
    const bool learned = example.labels[at] != ignored_label;
    std::vector<int64_t> piece;
    for (; at < example.ids.size() && (example.labels[at] != ignored_label) == learned; ++at)
      piece.push_back(example.ids[at]);
    const std::string text = work.text.get().tokenizer->decode(piece, false);
    std::cout << (learned ? "⟦" + text + "⟧" : text);
  }
  std::cout << "\n";
}

}  // namespace

int plan_command(const PlanArguments& arguments) {
  Experiment experiment(arguments.experiment, arguments.sets);
  start_torch();
  Workload work(experiment);
  const Model& model = *work.model;
  std::cout << "model: " << printable(experiment.model.path, 4096) << " (" << printable(model.config().model_type)
            << ", " << c10::toString(model.dtype()) << ", " << work.device << ")\n";
  std::cout << tokens_text(work) << data_text(work);
  print_modules(model);
  std::cout << adapters_text(experiment.adapters) << count_parameters(model).text() << "\n";
  print_groups(*experiment.optimizer);
  const StepCounts counts = count_steps(experiment, work);
  print_steps(experiment, counts);
  std::cout << arranged_memory(experiment, work, counts.largest);
  print_memory(expected_memory(experiment, work, counts.largest));
  print_sample(work);
  require_fit(experiment, work, counts.largest);
  return 0;
}

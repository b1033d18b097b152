#include "model_card.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "peft/adapters/files.h"
#include "screen.h"

namespace {

/// Not HF's line: its bars would end the cells of a table.
std::string parameters(const peft::ParameterCounts& census) {
  return format_count(census.trainable) + " trained of " + format_count(census.all);
}

/// Of several, each works with the others only.
std::string usage(const peft::AdapterStack& adapters) {
  std::string folders;
  for (const peft::NamedAdapter& one : adapters) folders += " --adapter " + folder_of(one, "THIS_FOLDER");
  std::string text = "## Use\n";
  if (adapters.size() == 1)
    text += "```python\nfrom peft import PeftModel\nmodel = PeftModel.from_pretrained(base_model, \"" +
            folder_of(adapters.front(), "this folder") + "\")\n```\n";
  else
    text += "All " + std::to_string(adapters.size()) + " adapters belong together, the first of these the outermost.\n";
  return text + "```sh\npeft-run generate --model BASE" + folders + " --prompt \"…\"\n```\n";
}

}  // namespace

std::string model_card(const Experiment& experiment, const Workload& work, const peft::TrainingResult& result) {
  const std::string base = std::filesystem::path(experiment.model.path).filename().string();
  std::string tags, method;
  for (const peft::NamedAdapter& one : experiment.adapters) {
    const std::string type = peft::peft_type(*one.adapter, *work.model);
    tags += "- " + type + "\n";
    method += (method.empty() ? "" : " + ") + type;
  }
  std::ostringstream out;
  out.exceptions(std::ios::badbit);
  // A JSON string is a YAML string, whatever is in the name.
  out << "---\nbase_model: " << nlohmann::json(base).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
      << "\nlibrary_name: peft\npipeline_tag: text-generation\n"
      << "tags:\n- peft\n"
      << tags << "---\n\n# " << method << " adapter of " << peft::printable(base) << "\n\n"
      << "Trained with peft (C++) on " << format_count(static_cast<int64_t>(work.data.examples.size())) << " examples ("
      << work.data.format << ", " << format_count(work.data.num_target_tokens) << " of "
      << format_count(work.data.tokens) << " tokens supervised).\n\n| | |\n|---|---|\n"
      << "| parameters | " << parameters(peft::count_parameters(*work.model)) << " |\n"
      << "| steps | " << result.steps << " (" << result.epochs << " epochs) |\n"
      << "| mean training loss | " << result.loss << " |\n";
  if (result.eval_loss)
    out << "| evaluation loss | "
        << (experiment.training.load_best_model_at_end ? result.best->loss : *result.eval_loss) << " |\n";
  out << "| base | XXH3-128 " << result.base_hash << ", bit-equal before and after |\n\n"
      << "`resolved.toml` repeats the run.\n\n"
      << usage(experiment.adapters);
  return out.str();
}

#include "experiment/model_card.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "peft/adapters/hf_files.h"
#include "peft/base/error.h"
#include "peft/base/format_count.h"
#include "peft/train/parameter_counts.h"

namespace peft {

namespace {

/// Not HF's line, whose bars would end the cells of a table.
std::string parameters(const ParameterCounts& counts) {
  return format_count(counts.trainable) + " trainable of " + format_count(counts.all);
}

std::string skipped_steps(const TrainingResult& result) {
  const int64_t skipped = result.skipped + result.nonfinite;
  return skipped == 0 ? "" : ", of which " + std::to_string(skipped) + " were skipped";
}

/// Several adapters work together only.
std::string usage(const AdapterStack& adapters) {
  std::string folders;
  for (const NamedAdapter& adapter : adapters) folders += " --adapter " + folder_of(adapter, "THIS_FOLDER");
  std::string text = "## Use\n";
  if (adapters.size() == 1)
    text += "```python\nfrom peft import PeftModel\nmodel = PeftModel.from_pretrained(base_model, \"" +
            folder_of(adapters.front(), "this folder") + "\")\n```\n";
  else
    text += "All " + std::to_string(adapters.size()) + " adapters belong together; the first one is the outermost.\n";
  return text + "```sh\npeft-run generate --model BASE" + folders + " --prompt \"…\"\n```\n";
}

}  // namespace

std::string model_card(const Experiment& experiment, const PreparedRun& run, const TrainingResult& result) {
  const std::string& named = run.base->base_name();
  // A local path says nothing on another machine.
  const std::string base =
      named == run.base->path() ? std::filesystem::path(experiment.model.path).filename().string() : named;
  std::string tags, method;
  for (const NamedAdapter& adapter : experiment.adapters) {
    const std::string type = peft_type(*adapter.adapter, *run.model);
    tags += "- " + type + "\n";
    method += (method.empty() ? "" : " + ") + type;
  }
  std::ostringstream out;
  out.exceptions(std::ios::badbit);
  // A JSON string is a valid YAML string whatever the name contains.
  out << "---\nbase_model: " << nlohmann::json(base).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)
      << "\nlibrary_name: peft\npipeline_tag: text-generation\n"
      << "tags:\n- peft\n"
      << tags << "---\n\n# " << method << " adapter of " << printable(base) << "\n\n"
      << "Trained with peft.cpp; the data are " << format_count(static_cast<int64_t>(run.data.examples.size()))
      << " examples (" << run.data.format << ", " << format_count(run.data.num_target_tokens) << " of "
      << format_count(run.data.tokens) << " tokens are targets of the loss).\n\n| | |\n|---|---|\n"
      << "| parameters | " << parameters(count_parameters(*run.model)) << " |\n"
      << "| steps | " << result.steps << " (" << result.epochs << " epochs)" << skipped_steps(result) << " |\n"
      << "| mean training loss | " << result.loss << " |\n";
  if (result.eval_loss)
    out << "| evaluation loss | "
        << (experiment.training.load_best_model_at_end ? result.best->loss : *result.eval_loss) << " |\n";
  out << "| learned | " << result.learning.text() << " |\n";
  if (!result.learning.problem.empty()) out << "| warning | " << result.learning.problem << " |\n";
  out << "| base | XXH3-128 " << result.base_hash << ", bit-identical before and after |\n\n"
      << "`resolved.toml` reproduces the run.\n\n"
      << usage(experiment.adapters);
  return out.str();
}

}  // namespace peft

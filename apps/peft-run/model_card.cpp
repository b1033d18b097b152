#include "model_card.h"

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "screen.h"

namespace {

/// Not HF's line: its bars would end the cells of a table.
std::string parameters(const peft::Census& census) {
  return grouped(census.trainable) + " trained of " + grouped(census.all);
}

}  // namespace

std::string model_card(const Experiment& experiment, const Workload& work, const peft::TrainingResult& result) {
  const std::string base = std::filesystem::path(experiment.model_path).filename().string();
  const nlohmann::ordered_json config = experiment.adapter->hf_config(*work.model);
  std::string method = config.value("peft_type", "adapter");
  std::ostringstream out;
  // A JSON string is a YAML string, whatever is in the name.
  out << "---\nbase_model: " << nlohmann::json(base).dump() << "\nlibrary_name: peft\npipeline_tag: text-generation\n"
      << "tags:\n- peft\n- " << method << "\n---\n\n# " << method << " adapter of " << peft::printable(base) << "\n\n"
      << "Trained with peft (C++) on " << grouped(static_cast<int64_t>(work.data.examples.size())) << " examples ("
      << work.data.format << ", " << grouped(work.data.supervised) << " of " << grouped(work.data.tokens)
      << " tokens supervised).\n\n| | |\n|---|---|\n"
      << "| parameters | " << parameters(peft::census(*work.model)) << " |\n"
      << "| steps | " << result.steps << " (" << result.epochs << " epochs) |\n"
      << "| mean training loss | " << result.loss << " |\n";
  if (result.eval_loss) out << "| evaluation loss | " << *result.eval_loss << " |\n";
  out << "| base | XXH3-128 " << result.base_hash << ", bit-equal before and after |\n\n"
      << "`resolved.toml` repeats the run.\n\n## Use\n```python\nfrom peft import PeftModel\n"
      << "model = PeftModel.from_pretrained(base_model, \"this folder\")\n```\n```sh\n"
      << "peft-run generate --model BASE --adapter THIS_FOLDER --prompt \"…\"\n```\n";
  return out.str();
}

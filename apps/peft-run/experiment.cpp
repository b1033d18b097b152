#include "experiment.h"

#include <torch/torch.h>

#include "commands.h"
#include "peft/adapter_files.h"
#include "peft/error.h"
#include "peft/model/load.h"

namespace {

using namespace peft;

std::string read_model_options(Options& in) {
  std::string path;
  in.get_path("path", path, "Hugging Face folder (config.json, *.safetensors, tokenizer.json) or .gguf file")
      .require(!path.empty(), "must be given");
  return path;
}

StringList read_plugin_options(Options& in) {
  StringList paths;
  in.get_paths("paths", paths, "folders searched for plugins before $PEFT_PLUGIN_PATH and the installed ones");
  return paths;
}

Document read_document(const std::string& path, const StringList& sets) {
  Document document = Document::from_file(path);
  for (const std::string& assignment : sets) document.set(assignment);
  return document;
}

/// The plugin that the table `[kind]` names; null where it names none, which document.finish() will tell.
template <class Interface>
std::unique_ptr<Interface> make(Document& document, Plugins& plugins, std::string name) {
  Options table = document.table(Kind<Interface>::name);
  table.get("name", name, "the plugin; 'peft-run list' shows those there are")
      .require(!name.empty(), "must be given: the table chooses a plugin by it");
  return name.empty() ? nullptr : plugins.make<Interface>(name, table);
}

/// With `init_from` the options are the saved adapter's: the table may hold none of its own.
std::unique_ptr<Adapter> make_adapter(Document& document, Plugins& plugins, std::string& init_from) {
  Options table = document.table("adapter");
  table.get_path("init_from", init_from, "folder of an adapter, made here or by HF PEFT, to go on from");
  if (init_from.empty()) return make<Adapter>(document, plugins, "");
  std::string name;
  table.get("name", name, "the plugin, or nothing: the saved adapter names it");
  auto [adapter, saved] = open_adapter(init_from, plugins);
  if (!name.empty() && name != saved)
    table.error("name", "is not what init_from holds, which is '" + printable(saved) + "'");
  return std::move(adapter);
}

}  // namespace

std::vector<CoreTable> core_tables() {
  const auto table = [](const char* name, const char* purpose, auto read) {
    Options empty;
    read(empty);
    return CoreTable{name, purpose, empty.described()};
  };
  return {table("model", "The base model, which stays frozen.", read_model_options),
          table("data", "What is learned from.", read_data_options),
          table("training", "The loop and where its results go.", read_training_options),
          table("memory", "What a step may hold.", read_memory_options),
          table("plugins", "Where plugins are looked for.", read_plugin_options)};
}

Experiment::Experiment(const std::string& path, const StringList& sets) : document(read_document(path, sets)) {
  const auto table = [&](const char* name, auto read) {
    Options options = document.table(name);
    return read(options);
  };
  model_path = table("model", read_model_options);
  data = table("data", read_data_options);
  training = table("training", read_training_options);
  memory = table("memory", read_memory_options);
  plugins = std::make_unique<Plugins>(Plugins::search_path(table("plugins", read_plugin_options)));
  adapter = make_adapter(document, *plugins, init_from);
  optimizer = make<Optimizer>(document, *plugins, "adamw");
  scheduler = make<Scheduler>(document, *plugins, "linear");
  clipper = make<GradientClipper>(document, *plugins, "norm");
  precision = make<Precision>(document, *plugins, "fp32");
  if (training.load_best_model_at_end && data.eval.empty() && data.eval_split <= 0)
    document.table("training").error("load_best_model_at_end", "needs evaluation data: [data] eval or eval_split");
  document.finish();
}

Workload::Workload(Experiment& experiment) : device(choose_device(experiment.training.device)), memory(device) {
  memory.phase(MemoryPhase::load);
  const auto checkpoint = Checkpoint::open(experiment.model_path);
  text = load_text(*checkpoint);
  const auto seed = static_cast<uint64_t>(experiment.training.seed);
  data = load_dataset(experiment.data.train, experiment.data, text);
  if (!experiment.data.eval.empty())
    eval_data = load_dataset(experiment.data.eval, experiment.data, text);
  else if (experiment.data.eval_split > 0)
    eval_data = split_dataset(data, experiment.data.eval_split, seed);
  model = load_model(checkpoint, experiment.precision->base_dtype(), device);
  // Before the adapter is drawn: the seed fixes where training starts.
  torch::manual_seed(seed);
  experiment.adapter->attach(*model, experiment.precision->adapter_dtype());
  if (!experiment.init_from.empty()) fill_adapter(experiment.init_from, *experiment.adapter, *model, false);
  for (ParamGroup& group : experiment.adapter->groups(*model)) experiment.optimizer->add(std::move(group));
}

StepCounts count_steps(const Experiment& experiment, const Workload& work) {
  Steps steps(work.data, experiment.training, experiment.data.packing, experiment.data.max_length);
  StepCounts counts{.steps = steps.total()};
  for (int64_t step = 0; step < steps.total(); ++step)
    for (const auto& examples : steps.next().batches) {
      const Batch batch = make_batch(work.data, examples);
      const auto size = static_cast<int64_t>(batch.ids.size());
      counts.tokens += size;
      counts.supervised += batch.supervised();
      counts.most_tokens = std::max(counts.most_tokens, size);
      counts.most_supervised = std::max(counts.most_supervised, batch.supervised());
    }
  return counts;
}

std::string arranged_memory(const Experiment& experiment, const Workload& work, const StepCounts& counts) {
  Model& model = *work.model;
  arrange_memory(model, *experiment.optimizer, counts.most_tokens, counts.most_supervised, experiment.memory);
  int64_t selective = 0, full = 0;
  for (const Checkpointing keeping : model.checkpointing()) {
    selective += keeping == Checkpointing::selective;
    full += keeping == Checkpointing::full;
  }
  if (selective + full == 0) return "";
  return "activation checkpointing: of " + std::to_string(model.checkpointing().size()) + " layers " +
         std::to_string(full) + " full, " + std::to_string(selective) + " selective\n";
}

std::string data_counts(const Dataset& data) {
  std::string text = grouped(static_cast<int64_t>(data.examples.size())) + " examples (" + data.format + "), " +
                     grouped(data.tokens) + " tokens, " + grouped(data.supervised) + " supervised";
  if (data.truncated > 0)
    text += "; " + grouped(data.truncated) + " cut at max_length, " + grouped(data.dropped_tokens) + " tokens lost";
  if (data.skipped > 0) text += "; " + grouped(data.skipped) + " skipped: nothing left to learn";
  return text + "\n";
}

std::string data_text(const Workload& work) {
  return "data: " + data_counts(work.data) + (work.eval_data ? "eval: " + data_counts(*work.eval_data) : "");
}

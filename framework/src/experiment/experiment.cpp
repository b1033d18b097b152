#include "peft/experiment/experiment.h"

#include <algorithm>

#include "peft/base/error.h"
#include "peft/train/train.h"

namespace peft {

namespace {

ModelOptions read_model_options(Options& in) {
  ModelOptions model;
  in.get_path("path", model.path, "Hugging Face folder (config.json, *.safetensors, tokenizer.json) or .gguf file")
      .require(!model.path.empty(), "must be given");
  in.get("added_tokens", model.added_tokens,
         "tokens to add to the vocabulary, with the next ids; embedding and head get rows for them, which are trained "
         "only by an adapter that trains them (modules_to_save, trainable_token_indices)");
  in.get("chat_template", model.chat_template,
         "chat template: a .jinja file, or the name of one of the model's templates; saved next to the adapter");
  if (model.chat_template.ends_with(".jinja")) in.get_path("chat_template", model.chat_template, "");
  in.get(
      "base_name", model.base_name,
      "base_model_name_or_path of the adapter, such as \"org/name\" on the hub; default: the name that a GGUF file has "
      "for itself there, else path");
  in.get("ignore_unknown", model.ignore_unknown,
         "read a model or an adapter (init_from) whose config has unknown keys, and report them");
  return model;
}

StringList read_plugin_options(Options& in) {
  StringList paths;
  in.get_paths("paths", paths, "folders searched for plugins before $PEFT_PLUGIN_PATH and the installed ones");
  return paths;
}

template <class Read>
auto read_table(Document& document, const char* name, Read read) {
  Options options = document.table(name);
  return read(options);
}

/// The plugin that the table `[kind]` names; null if it names none, which document.finish() reports.
template <class Interface>
std::unique_ptr<Interface> make(Document& document, Plugins& plugins) {
  std::string name = Kind<Interface>::default_plugin;
  Options table = document.table(Kind<Interface>::name);
  table.get("name", name, "the plugin; 'peft-run list' shows the installed ones")
      .require(!name.empty(), "must be given: it selects the plugin");
  return name.empty() ? nullptr : plugins.make<Interface>(name, table);
}

/// The objective's record formats are the ones that [data] format may name and "auto" chooses among.
void use_formats_of(const Objective& objective, DataOptions& data, Document& document) {
  data.formats = objective.formats();
  if (data.format == "auto" || std::find(data.formats.begin(), data.formats.end(), data.format) != data.formats.end())
    return;
  std::string known;
  for (const std::string& name : data.formats) known += (known.empty() ? "" : ", ") + name;
  document.table("data").error("format", "the objective does not read '" + data.format + "', only: " + known);
}

Document with_sets(Document document, const StringList& sets) {
  for (const std::string& assignment : sets) document.set(assignment);
  return document;
}

}  // namespace

std::vector<CoreTable> core_tables() {
  const auto table = [](const char* name, const char* purpose, auto read) {
    Options empty;
    read(empty);
    return CoreTable{name, purpose, empty.described()};
  };
  return {table("model", "The base model. Its weights are frozen.", read_model_options),
          table("data", "The training and evaluation data.", read_data_options),
          table("adapter",
                "The method; its own options are further keys. For several adapters write a table [[adapter]] each.",
                read_adapter_keys),
          table("training", "The training loop and its output.", read_training_options),
          table("memory", "Memory limits and activation checkpointing.", read_memory_options),
          table("plugins", "Where plugins are searched for.", read_plugin_options)};
}

Experiment Experiment::from_file(const std::string& path, const StringList& sets) {
  return Experiment(with_sets(Document::from_file(path), sets));
}

Experiment Experiment::from_text(const std::string& toml, const StringList& sets, const std::string& name) {
  return Experiment(with_sets(Document::from_text(toml, name), sets));
}

Experiment::Experiment(Document file) : document(std::move(file)) {
  model = read_table(document, "model", read_model_options);
  data = read_table(document, "data", read_data_options);
  training = read_table(document, "training", read_training_options);
  memory = read_table(document, "memory", read_memory_options);
  plugins = std::make_unique<Plugins>(Plugins::search_path(read_table(document, "plugins", read_plugin_options)));
  adapters = read_adapters(document, *plugins, model.ignore_unknown);
  optimizer = make<Optimizer>(document, *plugins);
  scheduler = make<Scheduler>(document, *plugins);
  clipping = make<GradientClipping>(document, *plugins);
  precision = make<Precision>(document, *plugins);
  objective = make<Objective>(document, *plugins);
  if (objective) use_formats_of(*objective, data, document);
  const bool has_eval_data = !data.eval.empty() || data.eval_split > 0;
  const auto need_eval_data = [&](const char* key) {
    document.table("training").error(key, "needs evaluation data: [data] eval or eval_split");
  };
  if (training.load_best_model_at_end && !has_eval_data) need_eval_data("load_best_model_at_end");
  if (training.eval_every > 0 && !has_eval_data) need_eval_data("eval_every");
  document.finish();
  require_evaluations(*scheduler, training, has_eval_data);
}

Experiment::~Experiment() = default;
Experiment::Experiment(Experiment&&) noexcept = default;

}  // namespace peft

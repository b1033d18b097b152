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
std::unique_ptr<Interface> make(Document& document, Plugins& plugins, PluginNames& names) {
  std::string name = Kind<Interface>::default_plugin;
  Options table = document.table(Kind<Interface>::name);
  table.get("name", name, "the plugin; 'peft-run list' shows the installed ones")
      .require(!name.empty(), "must be given: it selects the plugin");
  if (name.empty()) return nullptr;
  names.emplace_back(Kind<Interface>::name, name);
  if (const std::string error = plugins.missing(Kind<Interface>::name, name); !error.empty()) {
    document.reject_plugin(table, error);
    return nullptr;
  }
  return plugins.make<Interface>(name, table);
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

/// `--set precision=bf16` and `--set learning_rate=1e-3` name no table: throws ConfigError with what was meant.
void check_has_table(const std::string& assignment) {
  const std::string name = assignment.substr(0, assignment.find_first_of(".="));
  if (assignment.find('=') != name.size()) return;
  const StringList kinds = plugin_kind_names();
  const bool is_kind = std::find(kinds.begin(), kinds.end(), name) != kinds.end();
  const std::string hint =
      is_kind ? "" : Plugins(Plugins::search_path({})).name_hints().of_key(name, "", [](auto&&...) { return true; });
  if (is_kind || !hint.empty())
    throw ConfigError(
        "--set '" + printable(assignment) + "': write table.key=value; " +
        (is_kind ? "to choose the plugin, --set " + name + ".name=" + printable(assignment.substr(name.size() + 1))
                 : hint));
}

Document overridden(Document document, const StringList& sets, const StringList& overlays) {
  for (const std::string& file : overlays) document.overlay(file);
  for (const std::string& assignment : sets) {
    check_has_table(assignment);
    document.set(assignment);
  }
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

Experiment Experiment::from_file(const std::string& path, const StringList& sets, const StringList& overlays) {
  return Experiment(overridden(Document::from_file(path), sets, overlays));
}

Experiment Experiment::from_text(const std::string& toml, const StringList& sets, const std::string& name) {
  return Experiment(overridden(Document::from_text(toml, name), sets, {}));
}

Experiment::Experiment(Document file) : document(std::move(file)) {
  model = read_table(document, "model", read_model_options);
  data = read_table(document, "data", read_data_options);
  training = read_table(document, "training", read_training_options);
  memory = read_table(document, "memory", read_memory_options);
  plugin_paths = read_table(document, "plugins", read_plugin_options);
  plugins = std::make_unique<Plugins>(Plugins::search_path(plugin_paths));
  document.set_hints([searched = plugins.get()] { return searched->name_hints(); });
  adapters = read_adapters(document, *plugins, model.ignore_unknown);
  optimizer = make<Optimizer>(document, *plugins, plugin_names);
  scheduler = make<Scheduler>(document, *plugins, plugin_names);
  clipping = make<GradientClipping>(document, *plugins, plugin_names);
  precision = make<Precision>(document, *plugins, plugin_names);
  objective = make<Objective>(document, *plugins, plugin_names);
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

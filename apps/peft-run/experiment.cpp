#include "experiment.h"

#include <torch/torch.h>

#include <limits>

#include "commands.h"
#include "fit.h"
#include "peft/adapters/files.h"
#include "peft/base/error.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "peft/train/plugin_calls.h"
#include "token_ids.h"

namespace {

using namespace peft;

ModelOptions read_model_options(Options& in) {
  ModelOptions model;
  in.get_path("path", model.path, "Hugging Face folder (config.json, *.safetensors, tokenizer.json) or .gguf file")
      .require(!model.path.empty(), "must be given");
  in.get("added_tokens", model.added_tokens,
         "tokens to add to the vocabulary, with the next ids; embedding and head get rows for them, which train only "
         "where an adapter does it (modules_to_save, trainable_token_indices)");
  return model;
}

/// The files, with the tokens that the experiment adds, or with the text of an adapter that it goes on from.
std::shared_ptr<const PretrainedModel> open_base(const Experiment& experiment) {
  const auto files = open_pretrained(experiment.model.path);
  StringList folders;
  for (const NamedAdapter& one : experiment.adapters)
    if (!one.init_from.empty()) folders.push_back(one.init_from);
  VocabularyOverlay change = adapter_tokenizer_changes(*files, folders);
  std::vector<AddedToken> own;
  for (const std::string& content : experiment.model.added_tokens) own.push_back({.content = content});
  if (!own.empty() && !change.tokens.empty() && own != change.tokens)
    throw ConfigError("[model] added_tokens: init_from brings others; leave them out here");
  if (!own.empty()) change.tokens = std::move(own);
  return base_with_vocabulary(files, std::move(change), folders);
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

}  // namespace

std::vector<CoreTable> core_tables() {
  const auto table = [](const char* name, const char* purpose, auto read) {
    Options empty;
    read(empty);
    return CoreTable{name, purpose, empty.described()};
  };
  return {table("model", "The base model, which stays frozen.", read_model_options),
          table("data", "What is learned from.", read_data_options),
          table("adapter", "The method, whose options are the other keys; several are each written [[adapter]].",
                read_adapter_keys),
          table("training", "The loop and where its results go.", read_training_options),
          table("memory", "What a step may hold.", read_memory_options),
          table("plugins", "Where plugins are looked for.", read_plugin_options)};
}

Experiment::Experiment(const std::string& path, const StringList& sets) : document(read_document(path, sets)) {
  const auto table = [&](const char* name, auto read) {
    Options options = document.table(name);
    return read(options);
  };
  model = table("model", read_model_options);
  data = table("data", read_data_options);
  training = table("training", read_training_options);
  memory = table("memory", read_memory_options);
  plugins = std::make_unique<Plugins>(Plugins::search_path(table("plugins", read_plugin_options)));
  adapters = read_adapters(document, *plugins);
  optimizer = make<Optimizer>(document, *plugins, "adamw");
  scheduler = make<Scheduler>(document, *plugins, "linear");
  clipping = make<GradientClipping>(document, *plugins, "norm");
  precision = make<Precision>(document, *plugins, "fp32");
  if (training.load_best_model_at_end && data.eval.empty() && data.eval_split <= 0)
    document.table("training").error("load_best_model_at_end", "needs evaluation data: [data] eval or eval_split");
  document.finish();
  require_evaluations(*scheduler, training, !data.eval.empty() || data.eval_split > 0);
}

Workload::Workload(Experiment& experiment, const std::string& resume_from)
    : device(choose_device(experiment.training.device)),
      memory(device),
      checkpoint(open_base(experiment)),
      text(checkpoint) {
  memory.phase(MemoryPhase::load);
  begin_limit(experiment.memory);
  const TokenCache cache(experiment.data.cache);
  const auto seed = static_cast<uint64_t>(experiment.training.seed);
  data = cache.load(experiment.data.train, experiment.data, text);
  if (!experiment.data.eval.empty())
    eval_data = cache.load(experiment.data.eval, experiment.data, text);
  else if (experiment.data.eval_split > 0)
    eval_data = split_dataset(data, experiment.data.eval_split, seed);
  model = load_model(checkpoint, base_dtype(*experiment.precision), device);
  require_rows(data, *model);
  if (eval_data) require_rows(*eval_data, *model);
  // Before the adapters are drawn: the seed fixes where training starts.
  torch::manual_seed(seed);
  const torch::Dtype dtype = adapter_dtype(*experiment.precision);
  if (resume_from.empty())
    attach_adapters(experiment.adapters, *model, dtype,
                    calibration(*model, *experiment.precision, data, experiment.training, experiment.data.packing,
                                experiment.data.max_length));
  else
    resume_adapters(resume_from, experiment.adapters, *model, dtype);
  for (ParamGroup& group : groups_of(experiment.adapters, *model)) experiment.optimizer->add(std::move(group));
}

namespace {

void take_in(PeakBatch& most, const Batch& batch, bool behind_virtual) {
  most.tokens = std::max(most.tokens, static_cast<int64_t>(batch.ids.size()));
  most.num_target_tokens = std::max(most.num_target_tokens, batch.num_target_tokens(behind_virtual));
  most.examples = std::max(most.examples, static_cast<int64_t>(batch.cu_seqlens.size()) - 1);
}

PeakBatch largest_evaluation(const Workload& work, const TrainingOptions& options) {
  PeakBatch most;
  if (work.eval_data)
    for (const auto& examples : evaluation_batches(*work.eval_data, options.batch_size))
      take_in(most, make_batch(*work.eval_data, examples), work.model->virtual_tokens() > 0);
  return most;
}

/// Of so many passes over the data at most.
StepCounts count_passes(const Experiment& experiment, const Workload& work, const TrainingOptions& options,
                        double passes) {
  StepSampler steps(work.data, options, experiment.data.packing, experiment.data.max_length);
  StepCounts counts{.steps = steps.total()};
  counts.largest.evaluated = largest_evaluation(work, options);
  const bool behind_virtual = work.model->virtual_tokens() > 0;
  double epoch = 0;
  for (int64_t i = 0; i < steps.total() && epoch < passes; ++i) {
    const StepSampler::Step step = steps.next();
    epoch = step.epoch;
    for (const auto& examples : step.batches) {
      const Batch batch = make_batch(work.data, examples);
      counts.tokens += static_cast<int64_t>(batch.ids.size());
      counts.num_target_tokens += batch.num_target_tokens(behind_virtual);
      take_in(counts.largest.trained, batch, behind_virtual);
    }
  }
  return counts;
}

}  // namespace

StepCounts count_steps(const Experiment& experiment, const Workload& work) {
  return count_passes(experiment, work, experiment.training, std::numeric_limits<double>::infinity());
}

LargestBatches largest_batches(const Experiment& experiment, const Workload& work, const TrainingOptions& options) {
  constexpr double enough = 10;  // passes, each in another order
  return count_passes(experiment, work, options, enough).largest;
}

std::string arranged_memory(const Experiment& experiment, const Workload& work, const LargestBatches& largest) {
  Model& model = *work.model;
  choose_activation_checkpointing(model, *experiment.optimizer, largest.trained, largest.evaluated, experiment.memory);
  int64_t selective = 0, full = 0;
  for (const ActivationCheckpointing keeping : model.checkpointing()) {
    selective += keeping == ActivationCheckpointing::selective;
    full += keeping == ActivationCheckpointing::full;
  }
  if (selective + full == 0) return "";
  return "activation checkpointing: of " + std::to_string(model.checkpointing().size()) + " layers " +
         std::to_string(full) + " full, " + std::to_string(selective) + " selective\n";
}

std::string tokens_text(const Workload& work) {
  const AddedVocabulary* added = work.checkpoint->added();
  if (added == nullptr || !added->other_tokens()) return "";
  std::string text = "vocabulary: " + format_count(added->stored_rows) + " rows";
  if (added->rows != added->stored_rows) text += ", now " + format_count(added->rows);
  for (std::size_t i = 0; i < added->tokens.size(); ++i)
    text += (i == 0 ? "; added '" : ", '") + printable(added->tokens[i].content) + "' " +
            std::to_string(added->first_id + static_cast<int64_t>(i));
  return text + "\n";
}

std::string data_counts(const Dataset& data) {
  std::string text = format_count(static_cast<int64_t>(data.examples.size())) + " examples (" + data.format + "), " +
                     format_count(data.tokens) + " tokens, " + format_count(data.num_target_tokens) + " supervised";
  if (data.truncated > 0)
    text += "; " + format_count(data.truncated) + " cut at max_length, " + format_count(data.truncated_tokens) +
            " tokens lost";
  if (data.skipped > 0) text += "; " + format_count(data.skipped) + " skipped: nothing left to learn";
  if (data.cached) text += "; tokens from the cache";
  return text + "\n";
}

std::string adapters_text(const AdapterStack& adapters) {
  if (adapters.size() < 2) return "";
  std::string text = "adapters, the outermost first:";
  for (const NamedAdapter& one : adapters)
    text += (text.ends_with(':') ? " '" : ", '") + one.name + "' (" + one.plugin + ")";
  return text + "\n";
}

std::string data_text(const Workload& work) {
  std::string text = "data: " + data_counts(work.data);
  if (work.eval_data) text += "eval: " + data_counts(*work.eval_data);
  const std::string& why =
      work.data.cache_error.empty() && work.eval_data ? work.eval_data->cache_error : work.data.cache_error;
  return text + (why.empty() ? "" : "the tokens could not be kept for the next run: " + why + "\n");
}

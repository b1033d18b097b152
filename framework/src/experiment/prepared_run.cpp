#include "peft/experiment/prepared_run.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "data/records.h"
#include "peft/adapters/adapter_vocabulary.h"
#include "peft/base/error.h"
#include "peft/base/format_count.h"
#include "peft/data/sampler.h"
#include "peft/data/token_cache.h"
#include "peft/experiment/memory_check.h"
#include "peft/experiment/token_ids.h"
#include "peft/models/load.h"
#include "peft/pretrained/open.h"
#include "peft/runtime/device.h"
#include "peft/runtime/dtype_name.h"
#include "peft/text/text.h"
#include "peft/train/calibration_batches.h"
#include "peft/train/device_advice.h"
#include "peft/train/evaluate.h"
#include "peft/train/step_sampler.h"
#include "runtime/threads.h"

namespace peft {

namespace {

/// The pretrained files, with the tokens that the experiment adds or that an adapter named by init_from brings.
std::shared_ptr<const PretrainedModel> open_base(const Experiment& experiment) {
  const auto files = open_pretrained(experiment.model.path, {.ignore_unknown = experiment.model.ignore_unknown,
                                                             .base_name = experiment.model.base_name});
  StringList folders;
  for (const NamedAdapter& adapter : experiment.adapters)
    if (!adapter.init_from.empty()) folders.push_back(adapter.init_from);
  VocabularyOverlay overlay = adapter_tokenizer_changes(*files, folders);
  std::vector<AddedToken> added;
  for (const std::string& content : experiment.model.added_tokens) added.push_back({.content = content});
  if (!added.empty() && !overlay.tokens.empty() && added != overlay.tokens)
    throw ConfigError("[model] added_tokens: the adapter of init_from has other added tokens; remove this key");
  if (!added.empty()) overlay.tokens = std::move(added);
  if (!experiment.model.chat_template.empty())
    overlay.tokenizer_config["chat_template"] = find_chat_template(*files, experiment.model.chat_template);
  return base_with_vocabulary(files, std::move(overlay), folders);
}

void include_batch(PeakBatch& peak, const Batch& batch, bool has_virtual_tokens) {
  peak.tokens = std::max(peak.tokens, static_cast<int64_t>(batch.ids.size()));
  peak.num_target_tokens = std::max(peak.num_target_tokens, batch.num_target_tokens(has_virtual_tokens));
  peak.examples = std::max(peak.examples, static_cast<int64_t>(batch.cu_seqlens.size()) - 1);
}

PeakBatch peak_evaluation_batch(const PreparedRun& run, const TrainingOptions& options) {
  PeakBatch peak;
  if (run.eval_data)
    for (const auto& examples : evaluation_batches(*run.eval_data, options.batch_size))
      include_batch(peak, make_batch(*run.eval_data, examples), run.model->virtual_tokens() > 0);
  return peak;
}

/// The totals, if the first `counted` steps have been added up.
void extrapolate(StepCounts& counts, int64_t counted) {
  if (counted >= counts.steps) return;
  counts.is_estimate = true;
  const double share = static_cast<double>(counts.steps) / static_cast<double>(counted);
  for (int64_t* number : {&counts.tokens, &counts.num_target_tokens}) {
    const double all = share * static_cast<double>(*number);
    *number = all < 9e18 ? static_cast<int64_t>(all) : std::numeric_limits<int64_t>::max();
  }
}

/// Looks at ten epochs, each in another order, and at `min_steps` steps.
StepCounts count_epochs(const Experiment& experiment, const PreparedRun& run, const TrainingOptions& options,
                        int64_t min_steps) {
  constexpr double max_epochs = 10;
  StepSampler steps(run.data, options, experiment.data.packing, experiment.data.max_length);
  StepCounts counts{.steps = steps.total()};
  counts.peak.evaluation = peak_evaluation_batch(run, options);
  const bool has_virtual_tokens = run.model->virtual_tokens() > 0;
  double epoch = 0;
  int64_t counted = 0;
  for (; counted < steps.total() && (epoch < max_epochs || counted < min_steps); ++counted) {
    const StepSampler::Step step = steps.next();
    epoch = step.epoch;
    for (const auto& examples : step.batches) {
      const Batch batch = make_batch(run.data, examples);
      counts.tokens += static_cast<int64_t>(batch.ids.size());
      counts.num_target_tokens += batch.num_target_tokens(has_virtual_tokens);
      include_batch(counts.peak.training, batch, has_virtual_tokens);
    }
  }
  extrapolate(counts, counted);
  return counts;
}

}  // namespace

namespace {

/// A warm-up that is longer than the run, for example, leaves the rate low all along. "" if it reaches the optimizer's.
std::string describe_low_rate(const Scheduler& scheduler, int64_t total) {
  constexpr int64_t max_looks = 1000;
  constexpr double low = 0.9;
  double highest = 0;
  int64_t at = 0;
  for (int64_t i = 0; i < std::min(total, max_looks); ++i) {
    const double share = static_cast<double>(i) / static_cast<double>(max_looks - 1);
    const int64_t step = total <= max_looks ? i : static_cast<int64_t>(static_cast<double>(total - 1) * share);
    const double factor = scheduler.lr(step, total, 1);
    if (factor > highest) highest = factor, at = step;
  }
  if (highest >= low) return "";
  return "[scheduler] the learning rate never reaches optimizer.lr: at most " +
         std::to_string(std::lround(100 * highest)) + " % of it, in step " + std::to_string(at + 1) + " of " +
         std::to_string(total) + "; is the warm-up longer than the run?";
}

}  // namespace

PreparedRun::PreparedRun(Experiment& experiment, const std::string& resume_from)
    : device(choose_device(experiment.training.device)), memory(device), base(open_base(experiment)), text(base) {
  memory.phase(MemoryPhase::load);
  apply_memory_limit(experiment.memory);
  for (const StringList& files : {experiment.data.train, experiment.data.eval})
    for (const std::string& file : files) data::check_data_file(file);
  const TokenCache cache(experiment.data.cache);
  const auto seed = static_cast<uint64_t>(experiment.training.seed);
  data = cache.load(experiment.data.train, experiment.data, text);
  if (!experiment.data.eval.empty())
    eval_data = cache.load(experiment.data.eval, experiment.data, text);
  else if (experiment.data.eval_split > 0)
    eval_data = split_dataset(data, experiment.data.eval_split, seed);
  model = load_model(base, experiment.precision->base_dtype(), device);
  check_token_ids(data, *model);
  if (eval_data) check_token_ids(*eval_data, *model);
  // Before the adapters are initialized, so that the seed determines their initial values.
  torch::manual_seed(seed);
  const torch::Dtype dtype = experiment.precision->adapter_dtype();
  if (resume_from.empty())
    attach_adapters(experiment.adapters, *model, dtype,
                    calibration(*model, *experiment.precision, *experiment.objective, data, experiment.training,
                                experiment.data.packing, experiment.data.max_length));
  else
    resume_adapters(resume_from, experiment.adapters, *model, dtype);
  for (ParamGroup& group : groups_of(experiment.adapters, *model))
    experiment.optimizer->add_param_group(std::move(group));
}

PeakBatches peak_batches(const Experiment& experiment, const PreparedRun& run, const TrainingOptions& options) {
  return count_epochs(experiment, run, options, 0).peak;
}

StepCounts count_steps(const Experiment& experiment, const PreparedRun& run) {
  constexpr int64_t min_steps = 100'000;
  return count_epochs(experiment, run, experiment.training, min_steps);
}

std::string apply_memory_plan(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak) {
  CausalLm& model = *run.model;
  choose_activation_checkpointing(model, *experiment.optimizer, peak.training, peak.evaluation, experiment.memory);
  int64_t selective = 0, full = 0;
  for (const ActivationCheckpointing layer : model.checkpointing()) {
    selective += layer == ActivationCheckpointing::selective;
    full += layer == ActivationCheckpointing::full;
  }
  if (selective + full == 0) return "";
  return "activation checkpointing: " + std::to_string(full) + " layers full, " + std::to_string(selective) +
         " selective, of " + std::to_string(model.checkpointing().size());
}

std::string describe_model(const Experiment& experiment, const PreparedRun& run) {
  const CausalLm& model = *run.model;
  return "model: " + printable_path(experiment.model.path) + " (" + printable(model.config().model_type) + ", " +
         dtype_name(model.dtype()) + ", " + run.device.str() + "), " +
         describe_threads(at::get_num_threads(), cpu_share());
}

StringList describe_parts(const Experiment& experiment) {
  StringList lines;
  for (const auto& [kind, name] : experiment.plugin_names) {
    const std::string options = experiment.document.values(kind);
    lines.push_back(kind + ": " + printable(name) + (experiment.document.has_table(kind) ? "" : ", the default") +
                    (options.empty() ? "" : " (" + printable(options, 1000) + ")"));
  }
  const TrainingOptions& training = experiment.training;
  const bool packing = experiment.data.packing;
  lines.push_back("batch: " + format_count(training.batch_size * training.gradient_accumulation_steps) +
                  (packing ? " rows of " + format_count(experiment.data.max_length) + " tokens" : " examples") +
                  " per step (batch_size " + std::to_string(training.batch_size) + ", gradient_accumulation_steps " +
                  std::to_string(training.gradient_accumulation_steps) + ")");
  return lines;
}

StringList cautions(const Experiment& experiment, const PreparedRun& run) {
  StringList lines;
  if (std::string advice = advice_of(*experiment.precision, run.device); !advice.empty())
    lines.push_back(std::move(advice));
  const Scheduler& scheduler = *experiment.scheduler;
  const int64_t total =
      StepSampler(run.data, experiment.training, experiment.data.packing, experiment.data.max_length).total();
  if (std::string low = describe_low_rate(scheduler, total); !low.empty()) lines.push_back(std::move(low));
  return lines;
}

StringList describe_vocabulary(const PreparedRun& run) {
  const AddedVocabulary* added = run.base->added();
  if (added == nullptr || !added->other_tokens()) return {};
  std::string text = "vocabulary: " + format_count(added->stored_rows) + " rows";
  if (added->rows != added->stored_rows) text += ", now " + format_count(added->rows);
  for (std::size_t i = 0; i < added->tokens.size(); ++i)
    text += (i == 0 ? "; added '" : ", '") + printable(added->tokens[i].content) + "' " +
            std::to_string(added->first_id + static_cast<int64_t>(i));
  return {text};
}

std::string describe_dataset(const Dataset& data) {
  std::string text = format_count(static_cast<int64_t>(data.examples.size())) + " examples (" + data.format + "), " +
                     format_count(data.tokens) + " tokens, " + format_count(data.num_target_tokens) + " target tokens";
  if (data.truncated > 0)
    text += "; " + format_count(data.truncated) + " truncated to max_length (" + format_count(data.truncated_tokens) +
            " tokens dropped)";
  if (data.skipped > 0) text += "; " + format_count(data.skipped) + " skipped (no target tokens)";
  if (data.empty_answers > 0)
    text += "; " + format_count(data.empty_answers) + (data.empty_answers == 1 ? " empty answer" : " empty answers");
  if (data.cut_thinking > 0)
    text += "; " + format_count(data.cut_thinking) + (data.cut_thinking == 1 ? " answer whose" : " answers whose") +
            " thinking the chat template cuts out";
  if (data.cached) text += "; tokens from the cache";
  return text;
}

StringList describe_data(const PreparedRun& run) {
  StringList lines{"data: " + describe_dataset(run.data)};
  if (run.eval_data) lines.push_back("eval: " + describe_dataset(*run.eval_data));
  return lines;
}

StringList dataset_warnings(const Dataset& data, const Model& model, const std::string& name) {
  StringList lines;
  const auto warn = [&](int64_t count, int64_t all, const std::string& text) {
    lines.push_back(name + ": " + format_count(count) + " of " + format_count(all) + " examples " + text);
  };
  if (data.truncated * 10 > data.num_read)
    warn(data.truncated, data.num_read, "are truncated: their ends are not learned; raise max_length or split them");
  if (data.skipped * 10 > data.num_read)
    warn(data.skipped, data.num_read,
         "are skipped: they have no target tokens" + std::string(data.truncated > 0 ? " within max_length" : ""));
  if (data.empty_answers > 0)
    lines.push_back(name + ": " + format_count(data.empty_answers) +
                    (data.empty_answers == 1 ? " answer is" : " answers are") +
                    " empty: the model learns to end at once; remove such records, or give the message weight 0");
  const int64_t positions = model.config().max_position_embeddings - model.virtual_positions();
  const auto is_long = [&](const Example& example) { return static_cast<int64_t>(example.ids.size()) > positions; };
  if (const auto count = std::count_if(data.examples.begin(), data.examples.end(), is_long); count > 0)
    warn(count, static_cast<int64_t>(data.examples.size()),
         "are longer than the " + format_count(positions) +
             " positions that the model was pretrained for (max_position_embeddings); lower max_length to " +
             std::to_string(positions));
  return lines;
}

StringList data_warnings(const PreparedRun& run) {
  StringList lines = dataset_warnings(run.data, *run.model, "data");
  if (run.eval_data)
    for (std::string& line : dataset_warnings(*run.eval_data, *run.model, "eval")) lines.push_back(std::move(line));
  const std::string& error =
      run.data.cache_error.empty() && run.eval_data ? run.eval_data->cache_error : run.data.cache_error;
  if (!error.empty()) lines.push_back("the token cache is not used: " + error);
  return lines;
}

StringList describe_notes(const Experiment& experiment, const PreparedRun& run) {
  StringList lines = open_notes(*run.base);
  for (const NamedAdapter& adapter : experiment.adapters)
    lines.insert(lines.end(), adapter.notes.begin(), adapter.notes.end());
  return lines;
}

StringList describe_adapters(const AdapterStack& adapters) {
  if (adapters.size() < 2) return {};
  std::string text = "adapters, outermost first:";
  for (const NamedAdapter& adapter : adapters)
    text += (text.ends_with(':') ? " '" : ", '") + adapter.name + "' (" + adapter.plugin + ")";
  return {text};
}

}  // namespace peft

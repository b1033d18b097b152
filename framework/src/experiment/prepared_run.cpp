#include "peft/experiment/prepared_run.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <limits>

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
#include "peft/train/calibration_batches.h"
#include "peft/train/evaluate.h"
#include "peft/train/step_sampler.h"
#include "runtime/threads.h"

namespace peft {

namespace {

/// The pretrained files, with the tokens that the experiment adds or that an adapter named by init_from brings.
std::shared_ptr<const PretrainedModel> open_base(const Experiment& experiment) {
  const auto files = open_pretrained(experiment.model.path);
  StringList folders;
  for (const NamedAdapter& adapter : experiment.adapters)
    if (!adapter.init_from.empty()) folders.push_back(adapter.init_from);
  VocabularyOverlay overlay = adapter_tokenizer_changes(*files, folders);
  std::vector<AddedToken> added;
  for (const std::string& content : experiment.model.added_tokens) added.push_back({.content = content});
  if (!added.empty() && !overlay.tokens.empty() && added != overlay.tokens)
    throw ConfigError("[model] added_tokens: the adapter of init_from has other added tokens; remove this key");
  if (!added.empty()) overlay.tokens = std::move(added);
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

/// Of the first `max_epochs` epochs.
StepCounts count_epochs(const Experiment& experiment, const PreparedRun& run, const TrainingOptions& options,
                        double max_epochs) {
  StepSampler steps(run.data, options, experiment.data.packing, experiment.data.max_length);
  StepCounts counts{.steps = steps.total()};
  counts.peak.evaluation = peak_evaluation_batch(run, options);
  const bool has_virtual_tokens = run.model->virtual_tokens() > 0;
  double epoch = 0;
  for (int64_t i = 0; i < steps.total() && epoch < max_epochs; ++i) {
    const StepSampler::Step step = steps.next();
    epoch = step.epoch;
    for (const auto& examples : step.batches) {
      const Batch batch = make_batch(run.data, examples);
      counts.tokens += static_cast<int64_t>(batch.ids.size());
      counts.num_target_tokens += batch.num_target_tokens(has_virtual_tokens);
      include_batch(counts.peak.training, batch, has_virtual_tokens);
    }
  }
  return counts;
}

}  // namespace

PreparedRun::PreparedRun(Experiment& experiment, const std::string& resume_from)
    : device(choose_device(experiment.training.device)), memory(device), base(open_base(experiment)), text(base) {
  memory.phase(MemoryPhase::load);
  apply_memory_limit(experiment.memory);
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
  constexpr double max_epochs = 10;  // each in another order
  return count_epochs(experiment, run, options, max_epochs).peak;
}

StepCounts count_steps(const Experiment& experiment, const PreparedRun& run) {
  return count_epochs(experiment, run, experiment.training, std::numeric_limits<double>::infinity());
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
         c10::toString(model.dtype()) + ", " + run.device.str() + "), " +
         describe_threads(at::get_num_threads(), cpu_share());
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
  if (data.cached) text += "; tokens from the cache";
  return text;
}

StringList describe_data(const PreparedRun& run) {
  StringList lines{"data: " + describe_dataset(run.data)};
  if (run.eval_data) lines.push_back("eval: " + describe_dataset(*run.eval_data));
  const std::string& error =
      run.data.cache_error.empty() && run.eval_data ? run.eval_data->cache_error : run.data.cache_error;
  if (!error.empty()) lines.push_back("the token cache could not be written: " + error);
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

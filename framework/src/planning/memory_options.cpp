#include <torch/types.h>

#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "planning/estimator.h"

namespace peft {

namespace {

std::string mebibytes(uint64_t bytes) { return std::to_string((bytes + (1 << 19)) >> 20) + " MiB"; }

/// The k-th combination; each needs less memory and more work than the one before. 0 saves everything; then one layer
/// after the other recomputes its MLP; then one after the other recomputes everything.
std::vector<ActivationCheckpointing> combination(std::size_t layers, std::size_t k) {
  std::vector<ActivationCheckpointing> out(
      layers, k > layers ? ActivationCheckpointing::selective : ActivationCheckpointing::none);
  const std::size_t more = k > layers ? k - layers : k;
  for (std::size_t layer = 0; layer < more; ++layer)
    out[layer] = k > layers ? ActivationCheckpointing::full : ActivationCheckpointing::selective;
  return out;
}

/// A size in bytes; 0 if the key is not given.
uint64_t read_bytes(Options& in, const char* key, const char* help) {
  std::string text;
  in.get(key, text, help);
  const auto bytes = text.empty() ? std::optional<uint64_t>(0) : parse_bytes(text);
  if (!bytes) in.error(key, "must be a size such as \"2GiB\" or \"1500MB\"");
  return bytes.value_or(0);
}

}  // namespace

MemoryOptions read_memory_options(Options& in) {
  MemoryOptions options;
  std::string checkpointing = "none";
  in.get("activation_checkpointing", checkpointing,
         "activations that the backward pass recomputes instead of saving them: \"none\", \"selective\" (the MLPs') or "
         "\"full\" (all of a layer's)")
      .require(checkpointing == "none" || checkpointing == "selective" || checkpointing == "full",
               "must be \"none\", \"selective\" or \"full\"");
  options.activation_checkpointing = checkpointing == "full"        ? ActivationCheckpointing::full
                                     : checkpointing == "selective" ? ActivationCheckpointing::selective
                                                                    : ActivationCheckpointing::none;
  options.budget = read_bytes(
      in, "budget", "maximum of the memory plan's total (\"2GiB\"): chooses activation_checkpointing layer by layer");
  if (options.budget > 0 && checkpointing != "none")
    in.error("budget", "chooses activation_checkpointing by itself; set only one of the two");
  options.limit = read_bytes(
      in, "limit",
      "maximum memory of the process; a run that is expected to need more fails before its first step; \"\": what "
      "the machine, the control group and ulimit allow");
  return options;
}

void choose_activation_checkpointing(CausalLm& model, const Optimizer& optimizer, const PeakBatch& largest,
                                     const PeakBatch& evaluated, const MemoryOptions& options) {
  const auto layers = static_cast<std::size_t>(model.config().num_hidden_layers);
  model.set_checkpointing(std::vector<ActivationCheckpointing>(layers, options.activation_checkpointing));
  if (options.budget == 0) return;
  const Estimator estimator(model, optimizer);
  for (std::size_t k = 0; k <= 2 * layers; ++k) {
    model.set_checkpointing(combination(layers, k));
    if (estimator.estimate(largest, evaluated).total() <= options.budget) return;
  }
  const MemoryEstimate estimate = estimator.estimate(largest, evaluated);
  std::string components;
  for (std::size_t i = 0; i < kMemoryComponents; ++i)
    if (estimate.components[i] > 0)
      components += std::string(components.empty() ? "" : ", ") + name(static_cast<MemoryComponent>(i)) + " " +
                    mebibytes(estimate.components[i]);
  throw ResourceError("[memory] budget: this run needs " + mebibytes(estimate.total()) +
                      " even with all layers recomputed, the budget is " + mebibytes(options.budget) +
                      "; expected for micro-batches of " + std::to_string(largest.tokens) + " tokens: " + components +
                      "; use a smaller training.batch_size or data.max_length, or precision bf16");
}

}  // namespace peft

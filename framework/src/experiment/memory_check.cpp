#include "peft/experiment/memory_check.h"

#include <torch/types.h>

#include <algorithm>
#include <string_view>

#include "peft/base/bytes.h"
#include "peft/base/error.h"
#include "peft/base/format_count.h"

namespace peft {

namespace {

struct Bound {
  uint64_t bytes;    ///< that the process may use
  std::string name;  ///< for the message
};

/// The available memory includes the pages of the mapped base, which the system may evict, but not its addresses, which
/// count against ulimit -v.
Bound bound_of(const MemoryOptions& options, const MemoryEstimate& estimate) {
  if (options.limit > 0) return {options.limit, "[memory] limit"};
  const AvailableMemory available = available_memory();
  const bool of_addresses = std::string_view(available.bound) == "ulimit -v";
  const uint64_t now = estimate.program + estimate.reserved + (of_addresses ? estimate.mapped : 0);
  return {available.bytes > UINT64_MAX - now ? UINT64_MAX : available.bytes + now,
          std::string("what ") + available.bound + " leaves"};
}

/// Searches for changes with which the run fits.
class FitSearch {
 public:
  FitSearch(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak, uint64_t bytes)
      : experiment_(experiment), run_(run), peak_(peak), bytes_(bytes), checkpointing_(run.model->checkpointing()) {}
  ~FitSearch() { run_.model->set_checkpointing(checkpointing_); }
  FitSearch(const FitSearch&) = delete;
  FitSearch& operator=(const FitSearch&) = delete;

  /// Each alternative with the memory it needs; "" if there is none.
  std::string text() {
    const bool is_full = std::all_of(checkpointing_.begin(), checkpointing_.end(), [](ActivationCheckpointing layer) {
      return layer == ActivationCheckpointing::full;
    });
    const std::string full = "memory.activation_checkpointing = \"full\"";
    add_smaller("");
    if (is_full) return found_;
    run_.model->set_checkpointing(
        std::vector<ActivationCheckpointing>(checkpointing_.size(), ActivationCheckpointing::full));
    if (fits(peak_))
      add(full, peak_);
    else if (found_.empty())
      add_smaller(full + " and ");
    return found_;
  }

 private:
  uint64_t needed(const PeakBatches& peak) const { return expected_memory(experiment_, run_, peak).resident(); }
  bool fits(const PeakBatches& peak) const { return needed(peak) <= bytes_; }
  void add(const std::string& change, const PeakBatches& peak) {
    found_ += (found_.empty() ? "" : ", or ") + change + " (" + format_bytes(needed(peak)) + ")";
  }

  void add_smaller(const std::string& prefix) {
    TrainingOptions options = experiment_.training;
    while (options.batch_size > 1) {
      options.batch_size /= 2;
      options.gradient_accumulation_steps *= 2;
      const PeakBatches peak = peak_batches(experiment_, run_, options);
      if (!fits(peak)) continue;
      add(prefix + "training.batch_size = " + std::to_string(options.batch_size) +
              " with gradient_accumulation_steps = " + std::to_string(options.gradient_accumulation_steps),
          peak);
      break;
    }
    for (int64_t length = experiment_.data.max_length / 2; length >= 16; length /= 2) {
      const PeakBatches peak = truncated_to(length);
      if (!fits(peak)) continue;
      add(prefix + "data.max_length = " + std::to_string(length), peak);
      break;
    }
  }

  /// An upper bound of the largest batches of examples truncated to `length`.
  PeakBatches truncated_to(int64_t length) const {
    const auto bound = [&](PeakBatch peak, int64_t rows) {
      peak.tokens = std::min(peak.tokens, rows * length);
      peak.num_target_tokens = std::min(peak.num_target_tokens, peak.tokens);
      return peak;
    };
    const auto& [training, evaluation] = peak_;
    return {bound(training, experiment_.data.packing ? experiment_.training.batch_size : training.examples),
            bound(evaluation, evaluation.examples)};
  }

  const Experiment& experiment_;
  const PreparedRun& run_;
  const PeakBatches& peak_;
  uint64_t bytes_;
  std::vector<ActivationCheckpointing> checkpointing_;
  std::string found_;
};

}  // namespace

MemoryEstimate expected_memory(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak) {
  return estimate_memory(*run.model, *experiment.optimizer, peak.training, peak.evaluation);
}

std::string describe_estimate(const MemoryEstimate& estimate) {
  std::string text;
  const auto append = [&](const std::string& component, uint64_t bytes) {
    if (bytes > 0) text += (text.empty() ? "" : ", ") + component + " " + format_bytes(bytes);
  };
  for (std::size_t i = 0; i < kMemoryComponents; ++i)
    append(name(static_cast<MemoryComponent>(i)), estimate.components[i]);
  append("base, mapped", estimate.mapped);
  return text;
}

void apply_memory_limit(const MemoryOptions& options) {
  set_cpu_memory_limit(0);  // an earlier run of this process may have had one
  if (options.limit == 0) return;
  const uint64_t used = resident_bytes();
  if (options.limit <= used)
    throw ResourceError("[memory] limit: the limit is " + format_bytes(options.limit) +
                        ", but the process already uses " + format_bytes(used) + " before anything is loaded");
  set_cpu_memory_limit(options.limit - used);
}

void check_fits_in_memory(const Experiment& experiment, const PreparedRun& run, const PeakBatches& peak) {
  if (!run.device.is_cpu()) return;  // a GPU's allocator reports by itself what does not fit
  const MemoryEstimate estimate = expected_memory(experiment, run, peak);
  const Bound bound = bound_of(experiment.memory, estimate);
  if (estimate.resident() <= bound.bytes) {
    const uint64_t without_tensors = estimate.program + estimate.mapped;
    if (experiment.memory.limit > without_tensors) set_cpu_memory_limit(experiment.memory.limit - without_tensors);
    return;
  }
  const std::string evaluation = peak.evaluation.tokens == 0
                                     ? ""
                                     : " or evaluation batches of " + format_count(peak.evaluation.tokens) + " tokens";
  const std::string found = FitSearch(experiment, run, peak, bound.bytes).text();
  throw ResourceError(bound.name + ": this run needs " + format_bytes(estimate.resident()) + ", the limit is " +
                      format_bytes(bound.bytes) + "; expected for micro-batches of " +
                      format_count(peak.training.tokens) + " tokens" + evaluation + ": " + describe_estimate(estimate) +
                      ", code and runtime " + format_bytes(estimate.program) + "; " +
                      (found.empty() ? "no smaller batch, shorter examples or activation checkpointing make it fit; "
                                       "use a narrower precision or a smaller model"
                                     : "it fits with " + found) +
                      (experiment.memory.limit > 0 ? "" : "; memory.limit = \"…\" sets another limit"));
}

}  // namespace peft

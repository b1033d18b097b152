#include "fit.h"

#include <torch/types.h>

#include <algorithm>
#include <string_view>

#include "peft/base/error.h"
#include "screen.h"

namespace {

using namespace peft;

struct Bound {
  uint64_t bytes;    ///< that the whole process may hold
  std::string name;  ///< for the message
};

/// What is left already counts the pages of the mapped base, which the system may drop; but not its addresses, which it
/// has.
Bound bound_of(const MemoryOptions& options, const MemoryEstimate& estimate) {
  if (options.limit > 0) return {options.limit, "[memory] limit"};
  const AvailableMemory left = available_memory();
  const bool of_addresses = std::string_view(left.bound) == "ulimit -v";
  const uint64_t now = estimate.program + estimate.reserved + (of_addresses ? estimate.mapped : 0);
  return {left.bytes > UINT64_MAX - now ? UINT64_MAX : left.bytes + now, std::string("what ") + left.bound + " leaves"};
}

/// Looks for what makes the run fit.
class Search {
 public:
  Search(const Experiment& experiment, const Workload& work, const LargestBatches& largest, uint64_t bytes)
      : experiment_(experiment), work_(work), largest_(largest), bytes_(bytes), kept_(work.model->checkpointing()) {}
  ~Search() { work_.model->set_checkpointing(kept_); }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  /// Each alternative with what it needs; "" where there is none.
  std::string text() {
    const bool is_full = std::all_of(kept_.begin(), kept_.end(),
                                     [](ActivationCheckpointing one) { return one == ActivationCheckpointing::full; });
    const std::string full = "memory.activation_checkpointing = \"full\"";
    add_smaller("");
    if (is_full) return found_;
    work_.model->set_checkpointing(std::vector<ActivationCheckpointing>(kept_.size(), ActivationCheckpointing::full));
    if (fits(largest_))
      add(full, largest_);
    else if (found_.empty())
      add_smaller(full + " and ");
    return found_;
  }

 private:
  uint64_t needed(const LargestBatches& largest) const {
    return expected_memory(experiment_, work_, largest).resident();
  }
  bool fits(const LargestBatches& largest) const { return needed(largest) <= bytes_; }
  void add(const std::string& change, const LargestBatches& largest) {
    found_ += (found_.empty() ? "" : ", or ") + change + " (" + bytes_text(needed(largest)) + ")";
  }

  void add_smaller(const std::string& besides) {
    TrainingOptions options = experiment_.training;
    while (options.batch_size > 1) {
      options.batch_size /= 2;
      options.gradient_accumulation_steps *= 2;
      const LargestBatches largest = largest_batches(experiment_, work_, options);
      if (!fits(largest)) continue;
      add(besides + "training.batch_size = " + std::to_string(options.batch_size) +
              " with gradient_accumulation_steps = " + std::to_string(options.gradient_accumulation_steps),
          largest);
      break;
    }
    for (int64_t length = experiment_.data.max_length / 2; length >= 16; length /= 2) {
      const LargestBatches largest = cut(length);
      if (!fits(largest)) continue;
      add(besides + "data.max_length = " + std::to_string(length), largest);
      break;
    }
  }

  /// A bound on the largest micro-batch of examples that were cut at `length`.
  LargestBatches cut(int64_t length) const {
    const auto of = [&](PeakBatch largest, int64_t rows) {
      largest.tokens = std::min(largest.tokens, rows * length);
      largest.num_target_tokens = std::min(largest.num_target_tokens, largest.tokens);
      return largest;
    };
    const auto& [trained, evaluated] = largest_;
    return {of(trained, experiment_.data.packing ? experiment_.training.batch_size : trained.examples),
            of(evaluated, evaluated.examples)};
  }

  const Experiment& experiment_;
  const Workload& work_;
  const LargestBatches& largest_;
  uint64_t bytes_;
  std::vector<ActivationCheckpointing> kept_;
  std::string found_;
};

}  // namespace

MemoryEstimate expected_memory(const Experiment& experiment, const Workload& work, const LargestBatches& largest) {
  return estimate_memory(*work.model, *experiment.optimizer, largest.trained, largest.evaluated);
}

std::string estimate_text(const MemoryEstimate& estimate) {
  std::string text;
  const auto append = [&](const std::string& part, uint64_t bytes) {
    if (bytes > 0) text += (text.empty() ? "" : ", ") + part + " " + bytes_text(bytes);
  };
  for (std::size_t i = 0; i < kMemoryComponents; ++i)
    append(name(static_cast<MemoryComponent>(i)), estimate.components[i]);
  append("base, mapped", estimate.mapped);
  return text;
}

void begin_limit(const MemoryOptions& options) {
  if (options.limit == 0) return;
  const uint64_t now = resident_bytes();
  if (options.limit <= now)
    throw ResourceError("[memory] limit: " + bytes_text(options.limit) + " do not hold the program itself, which has " +
                        bytes_text(now) + " before anything is loaded");
  set_cpu_memory_limit(options.limit - now);
}

void require_fit(const Experiment& experiment, const Workload& work, const LargestBatches& largest) {
  if (!work.device.is_cpu()) return;  // what a device has it tells by itself
  const MemoryEstimate estimate = expected_memory(experiment, work, largest);
  const Bound bound = bound_of(experiment.memory, estimate);
  if (estimate.resident() <= bound.bytes) {
    const uint64_t besides = estimate.program + estimate.mapped;
    if (experiment.memory.limit > besides) set_cpu_memory_limit(experiment.memory.limit - besides);
    return;
  }
  const std::string evaluated =
      largest.evaluated.tokens == 0
          ? ""
          : " and evaluations by batches of " + format_count(largest.evaluated.tokens) + ", whichever need more";
  const std::string found = Search(experiment, work, largest, bound.bytes).text();
  throw ResourceError(
      bound.name + ": " + bytes_text(bound.bytes) + " do not hold this run: " + bytes_text(estimate.resident()) +
      " are expected for micro-batches of " + format_count(largest.trained.tokens) + " tokens" + evaluated + " (" +
      estimate_text(estimate) + ", the program " + bytes_text(estimate.program) + "); " +
      (found.empty()
           ? "no smaller batch, shorter examples or activation checkpointing make it fit; a narrower precision or "
             "a smaller model needs less"
           : "it fits with " + found) +
      (experiment.memory.limit > 0 ? "" : "; memory.limit = \"…\" sets another bound"));
}

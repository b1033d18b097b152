#include "fit.h"

#include <torch/types.h>

#include <algorithm>

#include "peft/error.h"
#include "screen.h"

namespace {

using namespace peft;

struct Bound {
  uint64_t bytes;    ///< that the whole process may hold
  std::string name;  ///< for the message
};

Bound bound_of(const MemoryOptions& options) {
  if (options.limit > 0) return {options.limit, "[memory] limit"};
  const AvailableMemory left = available_memory();
  const uint64_t now = resident_bytes();
  return {left.bytes > UINT64_MAX - now ? UINT64_MAX : left.bytes + now, std::string("what ") + left.bound + " leaves"};
}

/// Looks for what makes the run fit.
class Search {
 public:
  Search(const Experiment& experiment, const Workload& work, const LargestBatch& largest, uint64_t bytes)
      : experiment_(experiment), work_(work), largest_(largest), bytes_(bytes), kept_(work.model->checkpointing()) {}
  ~Search() { work_.model->set_checkpointing(kept_); }
  Search(const Search&) = delete;
  Search& operator=(const Search&) = delete;

  /// Each alternative with what it needs; "" where there is none.
  std::string text() {
    const bool is_full =
        std::all_of(kept_.begin(), kept_.end(), [](Checkpointing one) { return one == Checkpointing::full; });
    const std::string full = "memory.activation_checkpointing = \"full\"";
    add_smaller("");
    if (is_full) return found_;
    work_.model->set_checkpointing(std::vector<Checkpointing>(kept_.size(), Checkpointing::full));
    if (fits(largest_))
      add(full, largest_);
    else if (found_.empty())
      add_smaller(full + " and ");
    return found_;
  }

 private:
  uint64_t needed(const LargestBatch& largest) const {
    return estimate_memory(*work_.model, *experiment_.optimizer, largest).resident();
  }
  bool fits(const LargestBatch& largest) const { return needed(largest) <= bytes_; }
  void add(const std::string& change, const LargestBatch& largest) {
    found_ += (found_.empty() ? "" : ", or ") + change + " (" + bytes_text(needed(largest)) + ")";
  }

  void add_smaller(const std::string& besides) {
    TrainingOptions options = experiment_.training;
    while (options.batch_size > 1) {
      options.batch_size /= 2;
      options.gradient_accumulation_steps *= 2;
      const LargestBatch largest = largest_batch(experiment_, work_, options);
      if (!fits(largest)) continue;
      add(besides + "training.batch_size = " + std::to_string(options.batch_size) +
              " with gradient_accumulation_steps = " + std::to_string(options.gradient_accumulation_steps),
          largest);
      break;
    }
    for (int64_t length = experiment_.data.max_length / 2; length >= 16; length /= 2) {
      const LargestBatch largest = cut(length);
      if (!fits(largest)) continue;
      add(besides + "data.max_length = " + std::to_string(length), largest);
      break;
    }
  }

  /// A bound on the largest micro-batch of examples that were cut at `length`.
  LargestBatch cut(int64_t length) const {
    const int64_t rows = experiment_.data.packing ? experiment_.training.batch_size : largest_.examples;
    LargestBatch largest = largest_;
    largest.tokens = std::min(largest.tokens, rows * length);
    largest.supervised = std::min(largest.supervised, largest.tokens);
    return largest;
  }

  const Experiment& experiment_;
  const Workload& work_;
  const LargestBatch& largest_;
  uint64_t bytes_;
  std::vector<Checkpointing> kept_;
  std::string found_;
};

}  // namespace

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

void require_fit(const Experiment& experiment, const Workload& work, const LargestBatch& largest) {
  if (!work.device.is_cpu()) return;  // what a device has it tells by itself
  const MemoryEstimate estimate = estimate_memory(*work.model, *experiment.optimizer, largest);
  const Bound bound = bound_of(experiment.memory);
  if (estimate.resident() <= bound.bytes) {
    const uint64_t besides = estimate.program + estimate.mapped;
    if (experiment.memory.limit > besides) set_cpu_memory_limit(experiment.memory.limit - besides);
    return;
  }
  const std::string found = Search(experiment, work, largest, bound.bytes).text();
  throw ResourceError(
      bound.name + ": " + bytes_text(bound.bytes) + " do not hold this run: " + bytes_text(estimate.resident()) +
      " are expected for micro-batches of " + grouped(largest.tokens) + " tokens (" + estimate_text(estimate) +
      ", the program " + bytes_text(estimate.program) + "); " +
      (found.empty()
           ? "no smaller batch, shorter examples or activation checkpointing make it fit; a narrower precision or "
             "a smaller model needs less"
           : "it fits with " + found) +
      (experiment.memory.limit > 0 ? "" : "; memory.limit = \"…\" sets another bound"));
}

#pragma once

#include <cstdint>
#include <vector>

#include "peft/base/export.h"
#include "peft/data/dataset.h"
#include "peft/runtime/tensors.h"
#include "peft/train/options.h"

namespace peft {

/// The optimizer steps of a run: their micro-batches, as indices of examples. A pure function of data and options.
class PEFT_API StepSampler {
 public:
  struct Step {
    double epoch = 0;  ///< epochs completed after it
    std::vector<std::vector<std::size_t>> batches;
  };
  StepSampler(const Dataset& data, const TrainingOptions& options, bool packing, int64_t max_length);
  int64_t total() const { return total_; }
  Step next();
  StateDict state_dict() const;  ///< the epoch, and its batches used so far
  void load_state_dict(const StateDict& state);

 private:
  void begin_epoch();
  const Dataset& data_;
  const TrainingOptions& options_;
  bool packing_;
  int64_t max_length_, total_ = 0, epoch_ = 0;
  std::vector<std::vector<std::size_t>> batches_;
  std::size_t at_ = 0;
};

}  // namespace peft

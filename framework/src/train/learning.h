#pragma once

#include <string>
#include <vector>

#include "peft/runtime/scalar_state.h"
#include "peft/train/train.h"

namespace peft {

/// What a run has learned: which parameters differ from those at its start, and why others do not.
class Learning {
 public:
  explicit Learning(const Model& model);
  /// Of an optimizer step that was taken; `groups` have its learning rates.
  void step(double grad_norm, const std::vector<ParamGroup>& groups);
  /// With the values to save in the parameters.
  LearningResult result() const;

  void save(ScalarState& state) const;
  /// What an earlier process of the run saved.
  void load(const ScalarState& state);

 private:
  StringList unchanged() const;
  const Model& model_;
  StringList start_;  ///< digests of the trainable tensors
  /// At an earlier save: a tensor that returns to its start has changed, whether the run was resumed in between or not.
  mutable std::vector<bool> changed_;
  int64_t steps_ = 0;  ///< taken
  int64_t steps_with_gradient_ = 0, steps_with_rate_ = 0;
  int64_t last_gradient_ = 0;  ///< the last step whose gradient norm was not 0, among those taken
};

}  // namespace peft

#pragma once

#include <vector>

#include "peft/models/causal_lm.h"
#include "peft/planning/memory_estimate.h"

namespace peft {

/// Costs of one layer's sublayers, in order.
struct LayerCost {
  struct Part {
    SublayerCost cost;
    bool recomputed_by_selective;
  };
  std::vector<Part> sublayers;
  bool needs_grad = false;  ///< trainable parameters in this layer or below it: activations are saved
};

/// Memory estimates of one model with its adapters, which are profiled once.
class Estimator {
 public:
  Estimator(const CausalLm& model, const Optimizer& optimizer);
  /// With the model's current checkpointing.
  MemoryEstimate estimate(const PeakBatch& largest, const PeakBatch& evaluated) const;

 private:
  int64_t activation_elements(const PeakBatch& largest) const;
  void add_evaluation(MemoryEstimate& estimate, const PeakBatch& evaluated) const;
  const CausalLm& model_;
  const Optimizer& optimizer_;
  std::vector<LayerCost> layers_;
  SiteActivations head_;
};

}  // namespace peft

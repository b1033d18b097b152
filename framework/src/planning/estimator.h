#pragma once

#include <vector>

#include "peft/planning/memory_estimate.h"
#include "planning/activation_profiler.h"

namespace peft {

/// What is adapted in one half of a layer.
struct SublayerCost {
  bool fused = true;                   ///< nothing but frozen and low-rank Linears
  int64_t ranks = 0;                   ///< the products with A are kept
  bool norm = false, product = false;  ///< where not fused: whether the norm's output, and gate times up, are kept
  SiteMemory others;                   ///< of all other adapters together
};
struct AdaptedLayer {
  SublayerCost attention, mlp;
  bool learns = false;  ///< something in it or below it: what it computes is kept for the backward pass
  int64_t front = 0;    ///< keys in front of each example's own
  int64_t gated = 0;    ///< elements for each row of what is attended to by itself
};

/// Estimates of one model with its adapters, which are looked at once.
class Estimator {
 public:
  Estimator(const Model& model, const Optimizer& optimizer);
  /// With the checkpointing that the model has now.
  MemoryEstimate of(const PeakBatch& largest, const PeakBatch& evaluated) const;

 private:
  int64_t activation_elements(const PeakBatch& largest) const;
  const Model& model_;
  const Optimizer& optimizer_;
  std::vector<AdaptedLayer> layers_;
  SiteMemory head_;
};

}  // namespace peft

#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "peft/models/decoder.h"

namespace peft {

/// What adapters on a site keep from its forward pass for the backward one.
struct SiteMemory {
  double by_row = 0;  ///< bytes for each row of the input, the input itself and the output left out
  double fixed = 0;   ///< bytes whatever the rows: weights made anew at each pass
  bool input = true;  ///< whether the input is kept, too
  uint64_t bytes(int64_t rows) const { return static_cast<uint64_t>(by_row * static_cast<double>(rows) + fixed); }
};

/// Measured, since no plugin is asked what it needs: passes of few rows through the site by itself. What random numbers
/// follow stays as it is. Where nothing counts tensors (see memory_stats) there is nothing but the input.
class ActivationProfiler {
 public:
  explicit ActivationProfiler(const Model& model);
  ~ActivationProfiler();
  ActivationProfiler(const ActivationProfiler&) = delete;
  ActivationProfiler& operator=(const ActivationProfiler&) = delete;
  /// `site`: a Linear, a Norm, an attention or an MLP of the model.
  SiteMemory of(const Site& site);

 private:
  const Model& model_;
  Tensor random_;
  std::map<std::string, SiteMemory> known_;  ///< of sites that differ in nothing but their layer
};

}  // namespace peft
